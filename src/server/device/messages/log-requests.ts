import type { LogExcerpt } from "#gen/pinion/v1/device_pb.js";
import { storableText } from "../../../store/pg/values/storable.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { Link } from "../stream/link.ts";
import { response } from "./messages.ts";

/** Requests that wait for the device, at most, and for how long, in ms. */
const wantedMax = 8;
const wantedMs = 20_000;

/** Requests for the end of a device's log, from people on any replica. */
export class LogRequests {
  /** The asking replica of each wanted excerpt. */
  readonly #wanted = new Map<string, string>();
  readonly #orgId: string;
  readonly #link: Link;
  readonly #services: Pick<SessionServices<never>, "logArrived" | "after">;

  constructor(orgId: string, link: Link, services: Pick<SessionServices<never>, "logArrived" | "after">) {
    this.#orgId = orgId;
    this.#link = link;
    this.#services = services;
  }

  ask({ requestId, linesMax, replyTo }: { requestId: string; linesMax: number; replyTo: string }): void {
    if (this.#wanted.size >= wantedMax) return;
    this.#wanted.set(requestId, replyTo);
    this.#services.after(wantedMs, () => this.#wanted.delete(requestId));
    this.#link.send(response({ case: "logRequest", value: { requestId, linesMax } }));
  }

  /** An excerpt that was not asked for is dropped. */
  arrived({ requestId, text, isTruncated }: LogExcerpt): void {
    const replyTo = this.#wanted.get(requestId);
    if (replyTo === undefined) return;
    this.#wanted.delete(requestId);
    this.#services.logArrived({
      ...{ orgId: this.#orgId, requestId, replyTo },
      ...{ text: storableText(text), isTruncated },
    });
  }
}
