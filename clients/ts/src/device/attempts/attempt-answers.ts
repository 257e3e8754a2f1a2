import { RejectReason } from "../../gen/pinion/v1/device_pb.js";
import type { AttemptNames } from "../events.ts";
import { truncateUtf8 } from "../results/completion.ts";
import type { Attempt, AttemptsHost, Rejection } from "./attempt.ts";

/** Bound of a protocol field rule, in bytes. */
const REJECT_MESSAGE_BYTES_MAX = 1000;

const rejectReasons: Record<Rejection["reason"] | "shutting_down", RejectReason> = {
  busy: RejectReason.BUSY,
  unsupported: RejectReason.UNSUPPORTED,
  invalid: RejectReason.INVALID,
  shutting_down: RejectReason.SHUTTING_DOWN,
};

/** The answers to an assignment and a cancel, each told as an event. */
export class AttemptAnswers {
  readonly #host: AttemptsHost;

  constructor(host: AttemptsHost) {
    this.#host = host;
  }

  /** Accepts an attempt on the open stream. */
  accept(attempt: Attempt): void {
    attempt.acceptedOn = this.#host.stream();
    this.sendAccept(attempt.names);
  }

  sendAccept(names: AttemptNames): void {
    const { workId, attemptToken } = names;
    this.#host.send({ case: "accept", value: { $typeName: "pinion.v1.Accept", workId, attemptToken } });
    this.#host.emit({ type: "accepted", ...names });
  }

  reject(names: AttemptNames, reason: keyof typeof rejectReasons, message: string): void {
    this.#host.send({
      case: "reject",
      value: {
        $typeName: "pinion.v1.Reject",
        workId: names.workId,
        attemptToken: names.attemptToken,
        reason: rejectReasons[reason],
        message: truncateUtf8(message.toWellFormed(), REJECT_MESSAGE_BYTES_MAX).text,
      },
    });
    this.#host.emit({ type: "rejected", ...names, reason, message });
  }

  /** No event: a cancel of an attempt that is gone is answered too. */
  cancelled(attempt: { workId: string; attemptToken: string }): void {
    // Without a stream, the server asks again after the reconnect.
    this.#host.send({
      case: "cancelled",
      value: { $typeName: "pinion.v1.Cancelled", workId: attempt.workId, attemptToken: attempt.attemptToken },
    });
  }
}
