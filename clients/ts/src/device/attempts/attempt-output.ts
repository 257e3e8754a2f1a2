import { toBinary } from "@bufbuild/protobuf";
import { type Activity, ActivitySchema } from "../../gen/pinion/v1/activity_pb.js";
import { OutputStream } from "../../gen/pinion/v1/run_pb.js";
import { defaultLimits } from "../timing.ts";
import type { Attempt, AttemptsHost } from "./attempt.ts";

/** Output and activities of attempts on the open stream. A superseded attempt sends nothing. */
export class AttemptOutput {
  readonly #host: AttemptsHost;
  /** Bound on one message's output in bytes, told by the server. */
  chunkBytesMax = defaultLimits.outputChunkBytesMax;

  constructor(host: AttemptsHost) {
    this.#host = host;
  }

  /** Streams output of any size, in pieces within the server's bound. */
  output(attempt: Attempt, stream: "stdout" | "stderr", data: Uint8Array | string): void {
    const bytes = typeof data === "string" ? Buffer.from(data, "utf8") : data;
    const { workId, attemptToken } = attempt.names;
    for (let start = 0; start < bytes.length; start += this.chunkBytesMax) {
      const piece = bytes.subarray(start, start + this.chunkBytesMax);
      attempt.sequence += 1n;
      const isSent =
        attempt.end !== "superseded" &&
        this.#host.sendOutput(
          {
            case: "output",
            value: {
              $typeName: "pinion.v1.Output",
              workId,
              attemptToken,
              sequence: attempt.sequence,
              stream: stream === "stdout" ? OutputStream.STDOUT : OutputStream.STDERR,
              data: piece,
            },
          },
          piece.length,
        );
      this.#host.emit({
        type: "output",
        ...attempt.names,
        stream,
        data: piece,
        sequence: attempt.sequence,
        isSent,
      });
    }
  }

  /** Streams an activity and returns its number, counted from 1. */
  activity(attempt: Attempt, activity: Activity): bigint {
    attempt.activities += 1n;
    const { workId, attemptToken } = attempt.names;
    const numbered = { ...activity, sequence: attempt.activities };
    const isSent =
      attempt.end !== "superseded" &&
      this.#host.takesActivities() &&
      this.#host.sendOutput(
        {
          case: "activity",
          value: { $typeName: "pinion.v1.ActivityReport", workId, attemptToken, activities: [numbered] },
        },
        toBinary(ActivitySchema, numbered).length,
      );
    this.#host.emit({ type: "activity", ...attempt.names, activity: numbered, isSent });
    return attempt.activities;
  }
}
