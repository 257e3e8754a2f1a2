import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/pinion/v1/event_pb.js";
import type * as events from "../../store/events.ts";
import { timestampOf } from "./moments.ts";

export function eventMessage(row: events.EventRow): Event {
  return create(EventSchema, {
    cursor: String(row.seq),
    at: timestampOf(row.at),
    kind: row.kind,
    actor: row.actor,
    runId: row.run_id ?? "",
    watcherId: row.watcher_id ?? "",
    deviceId: row.device_id ?? "",
    data: row.data as JsonObject,
  });
}
