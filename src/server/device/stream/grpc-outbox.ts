/**
 * The outgoing side of a device's stream over gRPC (grpc-stream.ts): frames, and the status at its
 * end.
 */
import { constants, type ServerHttp2Stream } from "node:http2";
import { toBinary } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { type ConnectResponse, ConnectResponseSchema } from "#gen/pinion/v1/device_pb.js";
import type { Session } from "../session/session.ts";
import * as frames from "./grpc-frames.ts";
import { endGraceMs, type Link, messagesWaitingMax, type Prepared } from "./link.ts";

/** The trailers of an error, or of success. */
export function trailersOf(error?: ConnectError): Record<string, string> {
  const trailers = new Headers();
  setTrailerStatus(trailers, error);
  return Object.fromEntries(trailers);
}

/** Shared by all streams: an idle one has nothing to write. */
const noFrames: Uint8Array[] = [];

const frameOf = (message: ConnectResponse) => frames.framed(toBinary(ConnectResponseSchema, message));

/** The writer: messages sent in one turn of the event loop leave in one write. */
export class Outbox implements Link {
  /** Closed when the peer does not read. */
  session: Pick<Session, "close"> | undefined;
  readonly #stream: ServerHttp2Stream;
  readonly #toStatus: (error: unknown) => ConnectError;
  #queue = noFrames;
  /** Number of messages not yet accepted by the peer's flow control. */
  #waiting = 0;
  #ending: { error: unknown } | undefined;

  constructor(stream: ServerHttp2Stream, toStatus: (error: unknown) => ConnectError) {
    this.#stream = stream;
    this.#toStatus = toStatus;
  }

  prepare(message: () => ConnectResponse, frame?: () => Uint8Array | undefined): Prepared {
    return { frame: frame?.() ?? frameOf(message()) };
  }

  send(message: ConnectResponse | Prepared): void {
    if (!this.#mayWrite()) return;
    if ("frame" in message) this.#push(message.frame);
    else this.#push(frameOf("$typeName" in message ? message : message.message));
  }

  /** Queues a frame, like a message. */
  write(frame: Uint8Array): void {
    if (this.#mayWrite()) this.#push(frame);
  }

  /** False after the end, and for a peer that does not read, whose stream is cut. */
  #mayWrite(): boolean {
    if (this.#ending || this.#stream.destroyed) return false;
    if (this.#waiting < messagesWaitingMax) return true;
    this.#ending = { error: undefined };
    // Not even a status reaches a peer that reads nothing.
    this.#cut(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    this.session?.close("slow_reader");
    return false;
  }

  #push(frame: Uint8Array): void {
    this.#waiting += 1;
    if (this.#queue.length > 0) {
      this.#queue.push(frame);
      return;
    }
    this.#queue = [frame];
    process.nextTick(() => this.#flush());
  }

  end(error?: unknown): void {
    if (this.#ending) return;
    this.#ending = { error };
    if (this.#stream.destroyed) return;
    this.#flush();
    const stream = this.#stream;
    const status = error === undefined ? undefined : this.#toStatus(error);
    // The peer's later messages have no use.
    stream.pause();
    const timer = setTimeout(() => this.#cut(constants.NGHTTP2_CANCEL), endGraceMs);
    stream.once("close", () => clearTimeout(timer));
    stream.once("wantTrailers", () => {
      stream.sendTrailers(trailersOf(status));
      // The answer is whole. A reset in the same turn would overtake the trailers.
      setImmediate(() => this.#cut(constants.NGHTTP2_NO_ERROR));
    });
    stream.end();
  }

  #cut(code: number): void {
    this.#stream.close(code);
    // A stream closes only after all arrived data has been read.
    this.#stream.resume();
  }

  #flush(): void {
    const count = this.#queue.length;
    if (count === 0 || this.#stream.destroyed) return;
    const bytes = count === 1 ? this.#queue[0]! : Buffer.concat(this.#queue);
    this.#queue = noFrames;
    this.#stream.write(bytes, () => {
      this.#waiting -= count;
    });
  }
}
