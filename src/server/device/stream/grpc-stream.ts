/**
 * Device streams over gRPC, on the bare HTTP/2 stream: the protocol of nearly every device, at a
 * third of the CPU and under half of the memory of a handler with async iterables
 * (docs/decisions/0006). Only the framing is implemented here. Admission, message handling and
 * error statuses share the code of the other protocols; any stream other than plain, uncompressed
 * gRPC is left to them.
 *
 *   admitting   the token is looked up; nothing is read
 *   serving     arriving bytes are cut into messages, handed to one session in order
 *   closed      the status is being sent, or the peer is gone
 */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream, sensitiveHeaders } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type AttemptRef,
  type ConnectRequest,
  ConnectRequestSchema,
  DeviceService,
  type Heartbeat,
} from "#gen/pinion/v1/device_pb.js";
import { type Source, withinSource } from "../../../store/people/sources.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { Guard } from "../../access/guard.ts";
import { toConnectError } from "../../access/interceptors/errors.ts";
import { admitStream } from "../../access/interceptors/limit.ts";
import type { Limits } from "../../access/limits.ts";
import { peerAddressOf, requestIdFrom, requestIdHeader, userAgentOf } from "../../access/peer.ts";
import { nameOf } from "../../access/rules.ts";
import type { Crowd } from "../../http/crowd/crowd.ts";
import type { Visit } from "../../http/crowd/visit.ts";
import { readOptions } from "../../http/port/adapter.ts";
import type { Hub } from "../hub/hub.ts";
import type { Session } from "../session/session.ts";
import * as frames from "./grpc-frames.ts";
import { Outbox, trailersOf } from "./grpc-outbox.ts";
import { completionIn } from "./unreadable.ts";

const rpc = nameOf(DeviceService.method.connect);
const path = `/${rpc}`;
const contentTypes = new Set(["application/grpc", "application/grpc+proto"]);

export type DeviceStreams = {
  /** Serves the stream, or leaves it to the next handler (undefined). Rejects by a defect alone. */
  take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> | undefined;
};

export function createDeviceStreams(deps: {
  hub: Pick<Hub, "begin" | "pace">;
  guard: Guard;
  limits: Limits;
  trustedProxies: number;
  log: Logger;
  messageBytesMax: number;
  crowd?: Pick<Crowd, "find">;
}): DeviceStreams {
  const { hub, log, messageBytesMax } = deps;
  // Made once, because each idle device would keep its own.
  const toStatus = (error: unknown) => toConnectError(error, { log, rpc });
  return {
    take(stream, headers) {
      return isPlainGrpc(headers) ? serve(stream, headers) : undefined;
    },
  };

  async function serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    // "close" reports a broken stream; an error without a listener would end the process.
    stream.on("error", noError);
    const address = peerAddressOf(headers, stream.session?.socket.remoteAddress, deps.trustedProxies);
    const requestId = requestIdFrom(headers[requestIdHeader] as string | undefined);
    const outbox = new Outbox(stream, toStatus);
    const visit = deps.crowd?.find(stream);
    let session: Session;
    let source: Source;
    try {
      const principal = await admitStream(deps, { rpc, authorization: headers.authorization, address });
      if (stream.destroyed) return;
      const { tokenId } = principal;
      if (visit) visit.isStream = true;
      visit?.recognise(tokenId);
      source = { address, tokenId, userAgent: userAgentOf(headers["user-agent"]), requestId };
      session = deps.hub.begin(principal, outbox);
    } catch (error) {
      return refuse(stream, { headers, requestId }, toStatus(error));
    }
    outbox.session = session;
    stream.on("close", () => session.close("stream_broken"));
    // The headers are sent before the welcome, so that the client sees the connection.
    sendHeaders(stream, responseHeaders({ headers, requestId }));
    new Inbox({ stream, session, outbox, source, visit, messageBytesMax, pace: hub.pace });
  }
}

function isPlainGrpc(headers: IncomingHttpHeaders): boolean {
  return (
    headers[":path"] === path &&
    headers[":method"] === "POST" &&
    contentTypes.has(headers["content-type"] ?? "") &&
    (headers["grpc-encoding"] ?? "identity") === "identity" &&
    headers["grpc-timeout"] === undefined
  );
}

type Call = { headers: IncomingHttpHeaders; requestId: string };

function responseHeaders({ headers, requestId }: Call) {
  return {
    ":status": 200,
    "content-type": headers["content-type"],
    [requestIdHeader]: requestId,
    "grpc-accept-encoding": "identity",
  };
}

/** All but the status, which every table of HPACK has. */
const sentOnce = ["content-type", requestIdHeader, "grpc-accept-encoding", "date"];

/**
 * Sends the headers of a stream that may be idle for hours, so that nothing keeps them: not Node,
 * which keeps the list, and not the table of the connection's compression, in which "sensitive"
 * headers have no place. There they would take 0.8 KiB, to be sent shorter a second time that
 * seldom comes.
 */
function sendHeaders(stream: ServerHttp2Stream, headers: ReturnType<typeof responseHeaders>): void {
  const sent = Object.entries({ ...headers, date: new Date().toUTCString() })
    .flat()
    .map(String);
  Object.assign(sent, { [sensitiveHeaders]: sentOnce });
  stream.respond(sent, { waitForTrailers: true });
  sent.length = 0;
}

/** Ends a stream that was not admitted: headers and status together. */
function refuse(stream: ServerHttp2Stream, call: Call, error: ConnectError): void {
  if (stream.destroyed) return;
  stream.respond({ ...responseHeaders(call), ...trailersOf(error) }, { endStream: true });
  setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR));
}

const noError = () => {};
const noBytes = new Uint8Array();
const noAttempts: readonly AttemptRef[] = [];

/** Hands the arriving messages to the session, one after another. */
class Inbox {
  readonly #stream: ServerHttp2Stream;
  readonly #session: Session;
  readonly #source: Source;
  readonly #frames: frames.FrameReader;
  readonly #visit: Visit | undefined;
  readonly #outbox: Outbox;
  readonly #pace: Hub["pace"];
  /** The attempts of the last heartbeat, checked by the session, and their bytes. */
  #listed: Uint8Array = noBytes;
  #attempts = noAttempts;
  #isWaiting = false;
  #hasEnded = false;

  constructor(options: {
    stream: ServerHttp2Stream;
    session: Session;
    outbox: Outbox;
    source: Source;
    visit: Visit | undefined;
    messageBytesMax: number;
    pace: Hub["pace"];
  }) {
    const { stream } = options;
    this.#stream = stream;
    this.#outbox = options.outbox;
    this.#session = options.session;
    this.#source = options.source;
    this.#visit = options.visit;
    this.#pace = options.pace;
    this.#frames = new frames.FrameReader(options.messageBytesMax);
    stream.on("data", (chunk: Buffer) => {
      if (this.#session.state === "closed") return;
      this.#frames.push(chunk);
      if (!this.#isWaiting) this.#read();
      this.#visit?.holdExactly(this.#frames.bytesLeft);
    });
    stream.on("end", () => {
      this.#visit?.whole();
      this.#hasEnded = true;
      if (!this.#isWaiting) this.#leave();
    });
  }

  #read(): void {
    if (this.#pace.holds(this)) this.#pause();
    else this.#handle();
  }

  #pause(): void {
    this.#isWaiting = true;
    this.#stream.pause();
  }

  /** Handles what waited. */
  goOn(): void {
    this.#isWaiting = false;
    if (this.#session.state === "closed") return;
    this.#stream.resume();
    this.#handle();
    this.#visit?.holdExactly(this.#frames.bytesLeft);
    if (this.#hasEnded && !this.#isWaiting) this.#leave();
  }

  #handle(): void {
    let handled = 0;
    try {
      while (this.#session.state !== "closed") {
        if (handled++ > 0 && this.#pace.interrupts(this)) {
          this.#pause();
          return;
        }
        const bytes = this.#frames.next();
        if (!bytes) return;
        const beat = frames.plainBeatOf(bytes);
        if (beat && this.#repeats(beat)) continue;
        const message = this.#decode(bytes);
        if (!message) continue;
        // The hello may append events, which record the source of the call; later messages are
        // written in batches.
        const working =
          message.message.case === "hello"
            ? withinSource(this.#source, () => this.#session.receive(message))
            : this.#session.receive(message);
        if (working) {
          this.#wait(working);
          return;
        }
        if (beat && message.message.case === "heartbeat") this.#remember(beat, message.message.value);
      }
    } catch (error) {
      this.#session.failed(error);
    }
    this.#frames.clear();
  }

  /** Handles a heartbeat with the attempts of the last one; false for any other heartbeat. */
  #repeats({ sequence, listed }: frames.PlainBeat): boolean {
    if (!this.#session.takesBeats || Buffer.compare(listed, this.#listed) !== 0) return false;
    this.#outbox.write(frames.beatAckFrame(sequence, Date.now()));
    this.#session.beatAgain(this.#attempts);
    return true;
  }

  /** Heartbeats with the attempts of this one, just handled, will be recognised by their bytes. */
  #remember({ listed }: frames.PlainBeat, { attempts }: Heartbeat): void {
    if (!this.#session.takesBeats || !frames.isPlainList(listed, attempts)) return;
    // A copy: a part of the chunk would keep the whole chunk in memory.
    this.#listed = listed.length === 0 ? noBytes : Uint8Array.from(listed);
    this.#attempts = attempts;
  }

  /** Undefined: the bytes are no valid protobuf, and the session has dealt with the message. */
  #decode(bytes: Uint8Array): ConnectRequest | undefined {
    try {
      return fromBinary(ConnectRequestSchema, bytes, readOptions);
    } catch (error) {
      this.#session.receiveUnreadable((error as Error).message, completionIn(bytes));
      return undefined;
    }
  }

  #wait(working: Promise<void>): void {
    this.#pause();
    working
      .catch((error: unknown) => this.#session.failed(error))
      .then(() => {
        if (!this.#pace.holds(this)) this.goOn();
      })
      .catch((error: unknown) => this.#session.failed(error));
  }

  #leave(): void {
    if (this.#frames.bytesLeft > 0) {
      this.#session.failed(
        new ConnectError("protocol error: premature end of the stream", Code.InvalidArgument),
      );
    } else {
      this.#session.left();
    }
  }
}
