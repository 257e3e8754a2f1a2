/**
 * Unary calls over gRPC, on the bare HTTP/2 stream. In Connect's handler the one message of a call
 * and its answer pass some ten layers of async iterables, and Node makes a request and a response of
 * the stream (docs/decisions/0025). Only the framing is implemented here. Interceptors, handlers and
 * error statuses are those of all protocols, called by Connect's own function.
 *
 *   taken ─▶ message read ─▶ interceptors, handler ─▶ headers, message, trailers
 *     └─ no plain gRPC, or a token that must be looked up ─▶ Connect's handler
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Message } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ContextValues,
  createHandlerContext,
  createServiceImplSpec,
  type HandlerContext,
  type Interceptor,
  type MethodImplSpec,
} from "@connectrpc/connect";
import {
  type Compression,
  compressionNegotiate,
  createMethodSerializationLookup,
  encodeEnvelope,
  envelopeCompress,
  invokeUnaryImplementation,
} from "@connectrpc/connect/protocol";
import { parseTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import type { Guard } from "../access/guard.ts";
import type { Request } from "../access/peer.ts";
import { FrameReader } from "../device/stream/grpc-frames.ts";
import type { Crowd } from "../http/crowd/crowd.ts";
import type { Visit } from "../http/crowd/visit.ts";
import { acceptCompression, readOptions } from "../http/port/adapter.ts";
import { blame } from "../http/port/malformed.ts";
import { endWithAnswer } from "../http/port/request-ends.ts";
import type { TakeStream } from "../http/port/requests.ts";

const contentTypes = new Set(["application/grpc", "application/grpc+proto"]);
const encodingHeader = "grpc-accept-encoding";
/** As in Connect's handlers: smaller answers are not worth a compressor. */
const compressBytesMin = 1_024;

export type PlainCallOptions = {
  routes: (router: ConnectRouter) => void;
  interceptors: Interceptor[];
  contextValues: (request: Request) => ContextValues;
  shutdownSignal: AbortSignal;
  guard: Pick<Guard, "findKnown">;
  readMaxBytes: number;
  crowd?: Pick<Crowd, "find">;
};

type Unary = Extract<MethodImplSpec, { kind: "unary" }>;

/** An rpc, with what Connect's handler keeps for it. */
type Rpc = {
  spec: Unary;
  accepted: readonly Compression[];
  parse: (bytes: Uint8Array) => Message;
  serialize: (message: Message) => Uint8Array;
};

/** Takes the unary calls of callers whose tokens are known; leaves all others (undefined). */
export function createPlainCalls(options: PlainCallOptions): TakeStream {
  const rpcs = rpcsOf(options);
  return (stream, headers) => {
    const rpc = rpcs.get(headers[":path"] ?? "");
    const { session } = stream;
    if (!rpc || !session || !isPlainGrpc(headers)) return undefined;
    const principal = options.guard.findKnown(headers.authorization);
    if (!principal) return undefined;
    const visit = options.crowd?.find(stream);
    visit?.recognise(principal.tokenId);
    return new Call(rpc, { stream, socket: session.socket, headers, visit }, options).serve();
  };
}

function isPlainGrpc(headers: IncomingHttpHeaders): boolean {
  return (
    headers[":method"] === "POST" &&
    contentTypes.has(headers["content-type"] ?? "") &&
    (headers["grpc-encoding"] ?? "identity") === "identity" &&
    timeoutOf(headers).error === undefined
  );
}

function timeoutOf(headers: IncomingHttpHeaders) {
  const value = (headers["grpc-timeout"] as string | undefined) ?? null;
  return parseTimeout(value, Number.MAX_SAFE_INTEGER);
}

/** The unary rpcs of the routes, by their paths. */
function rpcsOf({ routes, readMaxBytes }: PlainCallOptions): ReadonlyMap<string, Rpc> {
  const rpcs = new Map<string, Rpc>();
  const limits = { readMaxBytes, writeMaxBytes: 0xffff_ffff };
  const router: ConnectRouter = {
    handlers: [],
    service(service, implementation, own) {
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) {
        if (spec.kind !== "unary") continue;
        const messages = createMethodSerializationLookup(spec.method, readOptions, undefined, limits);
        rpcs.set(`/${service.typeName}/${spec.method.name}`, {
          spec,
          accepted: own?.acceptCompression ?? acceptCompression,
          parse: messages.getI(true).parse,
          serialize: messages.getO(true).serialize,
        });
      }
      return router;
    },
    rpc: () => router,
  };
  routes(router);
  return rpcs;
}

type Asked = {
  stream: ServerHttp2Stream;
  socket: Socket | TLSSocket;
  headers: IncomingHttpHeaders;
  visit: Visit | undefined;
};

class Call {
  readonly #rpc: Rpc;
  readonly #asked: Asked;
  readonly #options: PlainCallOptions;
  readonly #leaving = new AbortController();

  constructor(rpc: Rpc, asked: Asked, options: PlainCallOptions) {
    this.#rpc = rpc;
    this.#asked = asked;
    this.#options = options;
  }

  async serve(): Promise<void> {
    const { stream } = this.#asked;
    // "close" tells of a broken stream; an error without a listener would end the process.
    stream.on("error", () => {});
    stream.once("close", () => this.#leaving.abort(new ConnectError("the caller has left", Code.Canceled)));
    endWithAnswer(stream);
    const context = this.#context();
    let answer: Uint8Array | undefined;
    let error: unknown;
    try {
      answer = await this.#answer(context);
    } catch (failure) {
      error = failure;
      setTrailerStatus(context.responseTrailer, blame(failure));
    }
    this.#write(context, answer);
    context.abort(error);
  }

  /** Undefined: the caller has left, before its message was whole or while it was served. */
  async #answer(context: HandlerContext): Promise<Uint8Array | undefined> {
    const { stream, headers, visit } = this.#asked;
    const { spec, accepted, parse, serialize } = this.#rpc;
    const { interceptors, readMaxBytes: bytesMax } = this.#options;
    const input = await readMessage(stream, { bytesMax, visit, parse });
    // A caller that resets its stream right after opening it has no call.
    if (!input || stream.closed) return undefined;
    const encodings = (headers[encodingHeader] as string | undefined) ?? null;
    const { response } = compressionNegotiate([...accepted], null, encodings, encodingHeader);
    if (response) context.responseHeader.set("grpc-encoding", response.name);
    const message = await invokeUnaryImplementation(spec, context, input, interceptors);
    const envelope = { flags: 0, data: serialize(message) };
    const { flags, data } = response
      ? await envelopeCompress(envelope, response, compressBytesMin)
      : envelope;
    return encodeEnvelope(flags, data);
  }

  #context() {
    const { stream, socket, headers } = this.#asked;
    const { spec } = this.#rpc;
    const scheme = (socket as TLSSocket).encrypted ? "https" : "http";
    return createHandlerContext({
      ...spec,
      service: spec.method.parent,
      requestMethod: "POST",
      protocolName: "grpc",
      timeoutMs: timeoutOf(headers).timeoutMs,
      shutdownSignal: this.#options.shutdownSignal,
      requestSignal: this.#leaving.signal,
      requestHeader: headerList(headers),
      url: `${scheme}://${headers[":authority"] ?? headers.host}${headers[":path"]}`,
      responseHeader: { "content-type": "application/grpc+proto" },
      responseTrailer: { "grpc-status": "0" },
      contextValues: this.#options.contextValues({ headers, socket, stream }),
    });
  }

  #write({ responseHeader, responseTrailer }: HandlerContext, answer: Uint8Array | undefined): void {
    const { stream } = this.#asked;
    if (stream.destroyed || stream.closed) return;
    stream.respond([":status", "200", ...[...responseHeader].flat()], { waitForTrailers: true });
    stream.prependOnceListener("wantTrailers", () => {
      if (!stream.destroyed) stream.sendTrailers(Object.fromEntries(responseTrailer));
    });
    stream.end(answer);
  }
}

/** The headers without the pseudo-headers of HTTP/2. */
function headerList(headers: IncomingHttpHeaders): [string, string][] {
  const list: [string, string][] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name.startsWith(":")) continue;
    for (const one of typeof value === "string" ? [value] : value) list.push([name, one]);
  }
  return list;
}

/**
 * The one message of a unary call, once its caller has sent all of it; undefined if the caller left
 * before. Rejects as Connect's handler does for no message, for more than one, and for one that
 * cannot be read or is too long, whose rest is not waited for.
 */
function readMessage(
  stream: ServerHttp2Stream,
  { bytesMax, visit, parse }: { bytesMax: number; visit: Visit | undefined; parse: Rpc["parse"] },
): Promise<Message | undefined> {
  return new Promise((resolve, reject) => {
    const frames = new FrameReader(bytesMax);
    let received = 0;
    let message: Message | undefined;
    const take = (chunk: Buffer) => {
      received += chunk.length;
      visit?.holdAtLeast(received);
      frames.push(chunk);
      try {
        const bytes = frames.next();
        if (bytes && message) throw protocolError("received extra input message", Code.Unimplemented);
        if (bytes) message = parse(bytes);
      } catch (error) {
        stream.off("data", take).resume();
        reject(error);
      }
    };
    stream.on("data", take);
    stream.once("end", () => {
      if (frames.bytesLeft > 0) take(nothing);
      if (frames.bytesLeft > 0) reject(protocolError("incomplete envelope", Code.InvalidArgument));
      else if (message) resolve(message);
      else reject(protocolError("missing input message", Code.Unimplemented));
    });
    stream.once("close", () => resolve(undefined));
  });
}

const nothing = Buffer.alloc(0);

const protocolError = (what: string, code: Code) => new ConnectError(`protocol error: ${what}`, code);
