/**
 * The send queue of a bus, for both kinds of bus. While one batch is being sent, new messages are
 * packed into the next batch. Control messages go first. Output waits in a queue of its own and is
 * sent when no control message waits. Both queues have a limit, and messages beyond it are dropped:
 * the sweep finds the work of dropped control messages.
 */
import type { Logger } from "../../log.ts";

/** By channel, the payloads in the order of sending. */
export type BusBatch = ReadonlyMap<string, string[]>;

export type BusSender<Message> = {
  /** Never waits. */
  enqueue(channel: string, message: Message): void;
  /** Resolves when nothing waits. */
  idle(): Promise<void>;
};

const messagesWaitingMax = 50_000;
const outputWaitingBytesMax = 1_048_576;
/** The bytes around the messages of a payload. */
const envelopeBytes = 100;

export function createBusSender<Message extends { kind: string }>(options: {
  /** The sending replica. */
  from: string;
  payloadBytesMax: number;
  /** Sends a batch. Logs lost messages itself and does not reject. */
  publish(batch: BusBatch): Promise<void>;
  log: Logger;
}): BusSender<Message> {
  const { from, payloadBytesMax, log } = options;
  let control = new Map<string, string[]>();
  let count = 0;
  let output = new Map<string, string[]>();
  let outputBytes = 0;
  let sending: Promise<void> | undefined;

  async function flush(): Promise<void> {
    await Promise.resolve();
    while (count > 0 || outputBytes > 0) {
      const batch = count > 0 ? control : output;
      if (count > 0) {
        control = new Map();
        count = 0;
      } else {
        output = new Map();
        outputBytes = 0;
      }
      await options.publish(
        new Map([...batch].map(([channel, messages]) => [channel, pack(from, messages, payloadBytesMax)])),
      );
    }
    // In the same turn as the last check of the queues: a message sent later starts a new flush.
    sending = undefined;
  }

  return {
    enqueue(channel, message) {
      const isOutput = message.kind === "output";
      if (isOutput ? outputBytes >= outputWaitingBytesMax : count >= messagesWaitingMax) return;
      const text = JSON.stringify(message);
      if (Buffer.byteLength(text) > payloadBytesMax - envelopeBytes) {
        log.warn({ kind: message.kind }, "a message was too large for the bus");
        return;
      }
      const lane = isOutput ? output : control;
      const messages = lane.get(channel) ?? [];
      if (messages.length === 0) lane.set(channel, messages);
      // Rings of the same bell count once.
      if (messages.at(-1) === text) return;
      messages.push(text);
      if (isOutput) outputBytes += text.length;
      else count += 1;
      sending ??= flush();
    },
    async idle() {
      while (sending) await sending;
    },
  };
}

/** Packs messages into as few payloads as their size allows. */
function pack(from: string, messages: readonly string[], payloadBytesMax: number): string[] {
  const payloads: string[] = [];
  let part: string[] = [];
  let bytes = envelopeBytes;
  const seal = () => payloads.push(`{"from":${JSON.stringify(from)},"messages":[${part.join(",")}]}`);
  for (const message of messages) {
    const size = Buffer.byteLength(message) + 1;
    if (part.length > 0 && bytes + size > payloadBytesMax) {
      seal();
      part = [];
      bytes = envelopeBytes;
    }
    part.push(message);
    bytes += size;
  }
  if (part.length > 0) seal();
  return payloads;
}

/** The content of a payload; undefined for a payload that no replica made. */
export function readEnvelope<Message>(payload: string): { from: string; messages: Message[] } | undefined {
  try {
    const envelope: unknown = JSON.parse(payload);
    return isEnvelope(envelope) ? (envelope as { from: string; messages: Message[] }) : undefined;
  } catch {
    return undefined;
  }
}

function isEnvelope(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { from, messages } = value as { from?: unknown; messages?: unknown };
  return typeof from === "string" && Array.isArray(messages) && messages.every(isMessage);
}

function isMessage(value: unknown): boolean {
  return (
    typeof value === "object" && value !== null && typeof (value as { kind?: unknown }).kind === "string"
  );
}
