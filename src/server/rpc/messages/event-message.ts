import { create, type JsonObject } from "@bufbuild/protobuf";
import {
  type Event,
  EventSchema,
  type EventSource,
  EventSourceSchema,
  type TransientEvent,
  TransientEventSchema,
} from "#gen/pinion/v1/event_pb.js";
import type * as events from "../../../store/work/service/events.ts";
import type { Transient } from "../../cluster/bus.ts";
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
    ...(row.source ? { source: sourceMessage(row.source) } : {}),
  });
}

function sourceMessage(source: NonNullable<events.EventRow["source"]>): EventSource {
  return create(EventSourceSchema, {
    address: source.address,
    tokenId: source.token_id,
    userAgent: source.user_agent,
    requestId: source.request_id,
  });
}

export function transientMessage(event: Transient): TransientEvent {
  return create(TransientEventSchema, {
    kind: event.kind,
    at: timestampOf(new Date(event.at)),
    deviceId: event.deviceId,
    replicaId: event.replicaId,
    sessionEpoch: BigInt(event.epoch),
    runId: event.workId ?? "",
    watcherId: event.watcherId ?? "",
    attempt: event.attempt ?? 0,
  });
}
