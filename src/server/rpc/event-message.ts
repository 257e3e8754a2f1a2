import { create, type JsonObject } from "@bufbuild/protobuf";
import {
  type Event,
  EventSchema,
  type TransientEvent,
  TransientEventSchema,
} from "#gen/pinion/v1/event_pb.js";
import type * as events from "../../store/events.ts";
import type { Transient } from "../bus.ts";
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

export function transientMessage(event: Transient): TransientEvent {
  return create(TransientEventSchema, {
    kind: event.kind,
    at: timestampOf(new Date(event.at)),
    deviceId: event.deviceId,
    replicaId: event.replicaId,
    sessionEpoch: BigInt(event.epoch),
    runId: event.runId ?? "",
    watcherId: event.watcherId ?? "",
    attempt: event.attempt ?? 0,
  });
}
