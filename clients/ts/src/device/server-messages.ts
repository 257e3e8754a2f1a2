import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import {
  CompletionVerdict,
  type ConnectRequest,
  type ConnectResponse,
  type Drain,
  DrainReason,
  HeldVerdict,
  LogExcerptSchema,
  type LogRequest,
} from "../gen/pinion/v1/device_pb.js";
import type { Attempts } from "./attempts/attempts.ts";
import type { Questions } from "./attempts/questions.ts";
import type { DeviceEventBody } from "./events.ts";
import type { Delivery } from "./results/delivery.ts";

/** The parts of a connection that the server's messages are for. */
export interface MessageParts {
  attempts: Attempts;
  questions: Questions;
  /** Undefined until the outbox is open. */
  delivery(): Delivery | undefined;
  logExcerpt(linesMax: number): { text: string; isTruncated: boolean } | undefined;
  /** Sends a message on the lane of output. */
  output(message: ConnectRequest["message"], bytes: number): void;
}

/** Hands the server's messages and verdicts to the parts of a connection. */
export class ServerMessages {
  readonly #parts: MessageParts;

  constructor(parts: MessageParts) {
    this.#parts = parts;
  }

  /** A verdict is about the attempt as listed in the hello; the attempt may have finished since. */
  obey(attemptToken: string, verdict: HeldVerdict): void {
    const told = { attemptToken, windowId: "", message: "" };
    switch (verdict) {
      case HeldVerdict.ABORT:
        // A result finished since is sent all the same; its own verdict follows.
        this.#parts.attempts.supersede(attemptToken);
        return;
      case HeldVerdict.ALREADY_STORED:
        this.#parts.attempts.supersede(attemptToken);
        void this.#parts.delivery()?.acknowledge({ ...told, verdict: CompletionVerdict.ALREADY_STORED });
        return;
      case HeldVerdict.CONTINUE:
      case HeldVerdict.SEND_RESULT:
      case HeldVerdict.UNSPECIFIED:
        // Running attempts go on, and a new stream sends the whole outbox anyway.
        return;
    }
  }

  /** Handles a message of the open stream. `atMs`: its arrival. */
  received(message: ConnectResponse, atMs: number): void {
    const { message: body } = message;
    switch (body.case) {
      case "assignment":
        void this.#parts.attempts.assign(body.value, atMs);
        return;
      case "cancel":
        this.#parts.attempts.cancel(body.value);
        return;
      case "completionAck":
        this.#parts.delivery()?.storedIn(body.value.incarnation, { isWelcome: false });
        void this.#parts.delivery()?.acknowledge(body.value);
        return;
      case "answer":
        this.#parts.questions.answered(body.value);
        return;
      case "logRequest":
        this.#sendLog(body.value);
        return;
      // `heartbeatAck` only feeds the watchdog; `welcome` and `drain` are handled by the session.
      case "heartbeatAck":
      case "welcome":
      case "drain":
      case undefined:
        return;
    }
  }

  /** On the lane of output: a log never delays a heartbeat or a result. */
  #sendLog({ requestId, linesMax }: LogRequest): void {
    const excerpt = this.#parts.logExcerpt(linesMax);
    if (excerpt === undefined) return;
    const value = create(LogExcerptSchema, { requestId, ...excerpt });
    this.#parts.output({ case: "logExcerpt", value }, Buffer.byteLength(excerpt.text));
  }
}

/** A drain as an event. */
export function drainedEvent(drain: Drain): DeviceEventBody {
  return {
    type: "drained",
    reason: DrainReason[drain.reason]?.toLowerCase() ?? String(drain.reason),
    reconnectAfterMs: drain.reconnectAfter === undefined ? 0 : durationMs(drain.reconnectAfter),
    message: drain.message,
    ...(drain.cell === "" ? {} : { cell: drain.cell }),
  };
}
