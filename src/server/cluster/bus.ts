import type { Logger } from "../../log.ts";
import type { Db } from "../../store/pg/database.ts";
import { notificationBytesMax, notify, openListener } from "../../store/pg/listener.ts";
import type { WorkKind } from "../../store/work/attempts/active.ts";
import { createBusSender, readEnvelope } from "./bus-sender.ts";

/** A transient event: a change in an org that no log stores; transients.ts has the rest. */
export type Transient = {
  kind: "run.claimed" | "run.started" | "device.connected" | "device.disconnected";
  /** By the replica's clock, in milliseconds since 1970. */
  at: number;
  deviceId: string;
  replicaId: string;
  epoch: number;
  workId?: string;
  watcherId?: string;
  attempt?: number;
};

/** The messages between replicas. Every message is a hint and may be lost. */
export type BusMessage =
  /** The device may have work of a kind. */
  | { kind: "work"; of: WorkKind; orgId: string; deviceId: string }
  /** Fleet workers of the org may have work of a kind. */
  | { kind: "fleet"; of: WorkKind; orgId: string }
  /** Runs of the org wait to be placed. */
  | { kind: "held"; orgId: string }
  /** The device is to be asked to end an attempt. */
  | { kind: "cancel"; orgId: string; deviceId: string; workId: string; attemptToken: string; reason: string }
  /** An attempt of the device was settled elsewhere. */
  | { kind: "settled"; orgId: string; deviceId: string; attemptToken: string }
  /** A question of the device's agent has ended. */
  | {
      kind: "answer";
      orgId: string;
      deviceId: string;
      workId: string;
      attemptToken: string;
      questionId: string;
      optionId: string;
      text: string;
      isDefault: boolean;
    }
  /** A person on the named replica wants the end of the device's log. */
  | {
      kind: "log_wanted";
      orgId: string;
      deviceId: string;
      requestId: string;
      linesMax: number;
      replyTo: string;
    }
  /** A piece of a device's log, in base64, for the replica that asked. */
  | {
      kind: "log_piece";
      orgId: string;
      requestId: string;
      index: number;
      count: number;
      data: string;
      isTruncated: boolean;
    }
  /** The device now has the named session; an older session ends. */
  | { kind: "replaced"; orgId: string; deviceId: string; epoch: number; sessionId: string }
  /** The device's session with the named epoch, or an older epoch, is to be drained. */
  | { kind: "disconnect"; orgId: string; deviceId: string; epoch: number; reason: "operator" | "revoked" }
  /** A platform owes a reply, or starts or stops. */
  | { kind: "platform"; orgId: string; stableId: string; about: "reply" | "state" }
  /** A token has ended. */
  | { kind: "revoked"; tokenId: string }
  /** Events were appended. */
  | { kind: "events"; orgId: string }
  /**
   * A client watches a run on the named replica, for the next minute; `isFirst`: the replica has no
   * output of the run yet.
   */
  | { kind: "watch"; orgId: string; workId: string; replicaId: string; isFirst: boolean }
  /** No client watches the run on the named replica any more. */
  | { kind: "unwatch"; orgId: string; workId: string; replicaId: string }
  /**
   * An attempt of a run or a turn was taken away; the replica that has output of the attempt stores
   * the output's end.
   */
  | { kind: "tail"; of: WorkKind; orgId: string; workId: string; attempt: number }
  /** A watched run or turn changed its state. */
  | { kind: "work_changed"; orgId: string; workId: string }
  /**
   * A client watches the org's transient events on the named replica, for the next minute;
   * transients.ts has the rest.
   */
  | { kind: "watch_org"; orgId: string; replicaId: string }
  /** No client watches the org on the named replica any more. */
  | { kind: "unwatch_org"; orgId: string; replicaId: string }
  /** A replica that has just begun to listen asks the others for the runs and orgs they watch. */
  | { kind: "who_watches"; replicaId: string }
  /** The number of the last message sent about a watched org. */
  | { kind: "org_heard"; orgId: string; from: string; relayId: string; sequence: number }
  /** Transient events of a watched org. */
  | {
      kind: "transients";
      orgId: string;
      from: string;
      relayId: string;
      sequence: number;
      events: Transient[];
    }
  /** A watched run's output, or its agent's activity; `data` in base64. */
  | {
      kind: "output";
      orgId: string;
      workId: string;
      attempt: number;
      /**
       * In decimal: JSON has no numbers of 64 bits. A replica of an older version sends a number.
       */
      sequence: string | number;
      stream: number;
      data: string;
    };

/** Messages between replicas about commits: PostgreSQL's notifications, or NATS (bus-nats.ts). */
export type Bus = {
  /** Sends to one replica. Never waits. */
  send(replicaId: string, message: BusMessage): void;
  /** To all others. */
  broadcast(message: BusMessage): void;
  /**
   * Whether the replica receives the other replicas' messages at present, as far as the bus knows.
   */
  isUp(): boolean;
  close(): Promise<void>;
};

export type BusHandlers = {
  onMessage(message: BusMessage): void;
  /** Messages may have been missed: look at the database. */
  onResync(): void;
};

const everybody = "pinion_all";
const channelOf = (replicaId: string) => `pinion_${replicaId}`;

/**
 * The bus over LISTEN/NOTIFY. Messages sent during a statement are packed into the next statement,
 * so a burst costs a few notifications. No message is sent inside a transaction that writes: NOTIFY
 * takes a global lock at its commit.
 */
export async function openPostgresBus(options: {
  db: Db;
  /** Not through a pooler: LISTEN belongs to its connection. */
  listenUrl: string;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
  /** Milliseconds between heartbeats, and maximum milliseconds of an answer. */
  heartbeatMs?: number;
}): Promise<Bus> {
  const { db, replicaId, handlers, log } = options;
  const listener = openListener({
    url: options.listenUrl,
    channels: [everybody, channelOf(replicaId)],
    log,
    ...(options.heartbeatMs ? { heartbeatMs: options.heartbeatMs } : {}),
    onResync: handlers.onResync,
    onNotification(_, payload) {
      const envelope = readEnvelope<BusMessage>(payload);
      if (!envelope) {
        log.warn({ bytes: payload.length }, "a notification could not be read");
        return;
      }
      if (envelope.from === replicaId) return;
      for (const message of envelope.messages) handlers.onMessage(message);
    },
  });
  await listener.ready;

  const sender = createBusSender({
    from: replicaId,
    payloadBytesMax: notificationBytesMax,
    log,
    async publish(batch) {
      for (const [channel, payloads] of batch) {
        await notify(db, channel, payloads).catch((error) =>
          log.warn({ err: error }, "notifications were lost; the sweep makes them good"),
        );
      }
    },
  });
  return {
    send: (to, message) => sender.enqueue(channelOf(to), message),
    broadcast: (message) => sender.enqueue(everybody, message),
    isUp: () => listener.isListening(),
    async close() {
      await sender.idle();
      await listener.close();
    },
  };
}
