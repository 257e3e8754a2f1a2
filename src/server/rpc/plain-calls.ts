/**
 * Unary calls over gRPC and Connect's binary messages, on the bare HTTP/2 stream. In Connect's
 * handlers the one message of a call and its answer pass some ten layers of async iterables, and
 * Node makes a request and a response of the stream (docs/decisions/0025). Only the framing is
 * implemented here (plain-wires.ts). Interceptors, handlers and error statuses are those of all
 * protocols, called by Connect's own function.
 *
 *   taken ─▶ message read ─▶ interceptors, handler ─▶ headers, message, trailers
 *     └─ another protocol, or a token that must be looked up ─▶ Connect's handler
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
  invokeUnaryImplementation,
} from "@connectrpc/connect/protocol";
import type { Guard } from "../access/guard.ts";
import type { Request } from "../access/peer.ts";
import type { Crowd } from "../http/crowd/crowd.ts";
import type { Visit } from "../http/crowd/visit.ts";
import { acceptCompression, readOptions } from "../http/port/adapter.ts";
import { endWithAnswer } from "../http/port/request-ends.ts";
import type { TakeStream } from "../http/port/requests.ts";
import { type Answer, type Wire, wires } from "./plain-wires.ts";

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
    if (!rpc || !session || headers[":method"] !== "POST") return undefined;
    const wire = wires.find((one) => one.isPlain(headers));
    if (!wire) return undefined;
    const principal = options.guard.findKnown(headers.authorization);
    if (!principal) return undefined;
    const visit = options.crowd?.find(stream);
    visit?.recognise(principal.tokenId);
    return new Call(rpc, { stream, wire, socket: session.socket, headers, visit }, options).serve();
  };
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
  wire: Wire;
  socket: Socket | TLSSocket;
  headers: IncomingHttpHeaders;
  visit: Visit | undefined;
};

/** Ends what listens to a call beyond its answer; made once, because an error notes its stack. */
const answered = new ConnectError("the call was answered", Code.Canceled);

class Call {
  readonly #rpc: Rpc;
  readonly #asked: Asked;
  readonly #options: PlainCallOptions;
  readonly #leaving = new AbortController();
  #isAnswered = false;

  constructor(rpc: Rpc, asked: Asked, options: PlainCallOptions) {
    this.#rpc = rpc;
    this.#asked = asked;
    this.#options = options;
  }

  async serve(): Promise<void> {
    const { stream, wire, headers } = this.#asked;
    // "close" tells of a broken stream; an error without a listener would end the process.
    stream.on("error", () => {});
    stream.once("close", () => {
      if (!this.#isAnswered) this.#leaving.abort(new ConnectError("the caller has left", Code.Canceled));
    });
    endWithAnswer(stream);
    const context = this.#context();
    const encodings = (headers[wire.encodingHeader] as string | undefined) ?? null;
    const accepted = [...this.#rpc.accepted];
    const { response } = compressionNegotiate(accepted, null, encodings, wire.encodingHeader);
    const answer = await wire.answer(context, response, () => this.#message(context));
    this.#write(answer);
    this.#isAnswered = true;
    context.abort(answer.error ?? answered);
  }

  /** Undefined: the caller has left, before its message was whole or while it was served. */
  async #message(context: HandlerContext): Promise<Uint8Array | undefined> {
    const { stream, wire, visit } = this.#asked;
    const { spec, parse, serialize } = this.#rpc;
    const { interceptors, readMaxBytes: bytesMax } = this.#options;
    const onReceived = (bytes: number) => visit?.holdAtLeast(bytes);
    const input = await wire.read(stream, { bytesMax, parse, onReceived });
    // A caller that resets its stream right after opening it has no call.
    if (!input || stream.closed) return undefined;
    return serialize(await invokeUnaryImplementation(spec, context, input, interceptors));
  }

  #context() {
    const { stream, wire, socket, headers } = this.#asked;
    const { spec } = this.#rpc;
    const scheme = (socket as TLSSocket).encrypted ? "https" : "http";
    return createHandlerContext({
      ...spec,
      service: spec.method.parent,
      requestMethod: "POST",
      protocolName: wire.name,
      timeoutMs: wire.timeoutMsOf(headers),
      shutdownSignal: this.#options.shutdownSignal,
      requestSignal: this.#leaving.signal,
      requestHeader: headerList(headers),
      url: `${scheme}://${headers[":authority"] ?? headers.host}${headers[":path"]}`,
      responseHeader: wire.responseHeader,
      responseTrailer: wire.responseTrailer,
      contextValues: this.#options.contextValues({ headers, socket, stream }),
    });
  }

  #write({ status, headers, body, trailers }: Answer): void {
    const { stream } = this.#asked;
    if (stream.destroyed || stream.closed) return;
    stream.respond([":status", String(status), ...[...headers].flat()], { waitForTrailers: true });
    stream.prependOnceListener("wantTrailers", () => {
      if (!stream.destroyed) stream.sendTrailers(Object.fromEntries(trailers ?? []));
    });
    stream.end(body);
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
