/**
 * The differences between the protocols of plain-calls.ts: the form of a message, of an answer and
 * of an error. All bytes are as from Connect's handlers (plain-calls.test.ts compares the bytes).
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import {
  type Compression,
  encodeEnvelope,
  envelopeCompress,
  mergeNonProtocolHeaders,
} from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  errorToJsonBytes,
  parseTimeout as parseConnectTimeout,
  trailerMux,
} from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpcTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { timerMsMax } from "../../time/abort.ts";
import { FrameReader } from "../device/stream/grpc-frames.ts";
import { blame } from "../http/port/malformed.ts";

/** A protocol of unary calls. */
export type Wire = {
  name: "grpc" | "connect";
  /**
   * Whether the call's message is uncompressed, and its deadline is readable and within the reach
   * of a timer.
   */
  isPlain(headers: IncomingHttpHeaders): boolean;
  timeoutMsOf(headers: IncomingHttpHeaders): number | undefined;
  /** Lists the compressions that the caller accepts. */
  encodingHeader: string;
  /** The headers of each answer, before the handler adds headers. */
  responseHeader: Record<string, string>;
  responseTrailer: Record<string, string>;
  /**
   * The one message of the call, after its last byte; undefined if the caller left before. Rejects
   * as Connect's handlers do for an unreadable message, and for a message above the limit without
   * waiting for its rest; over gRPC also for no message, and for several messages.
   */
  read(stream: ServerHttp2Stream, options: ReadOptions): Promise<Message | undefined>;
  /**
   * The answer of a call, from the message or the error of `serve`; `serve` undefined: the caller
   * has left.
   */
  answer(
    context: HandlerContext,
    compression: Compression | null,
    serve: () => Promise<Uint8Array | undefined>,
  ): Promise<Answer>;
};

type ReadOptions = {
  bytesMax: number;
  parse: (bytes: Uint8Array) => Message;
  /** Told the bytes received so far. */
  onReceived: (bytes: number) => void;
};

/** `trailers`: sent after the body. */
export type Answer = {
  status: number;
  headers: Headers;
  body: Uint8Array | undefined;
  trailers?: Headers;
  error?: unknown;
};

/** As in Connect's handlers: smaller answers are not worth a compressor. */
const compressBytesMin = 1_024;
const nothing = Buffer.alloc(0);

const one = (header: string | string[] | undefined) => (header as string | undefined) ?? null;
const protocolError = (what: string, code: Code) => new ConnectError(`protocol error: ${what}`, code);

const grpcTypes = new Set(["application/grpc", "application/grpc+proto"]);
const grpcTimeoutOf = (headers: IncomingHttpHeaders) =>
  parseGrpcTimeout(one(headers["grpc-timeout"]), timerMsMax);

const grpc: Wire = {
  name: "grpc",
  isPlain: (headers) =>
    grpcTypes.has(headers["content-type"] ?? "") &&
    (headers["grpc-encoding"] ?? "identity") === "identity" &&
    grpcTimeoutOf(headers).error === undefined,
  timeoutMsOf: (headers) => grpcTimeoutOf(headers).timeoutMs,
  encodingHeader: "grpc-accept-encoding",
  responseHeader: { "content-type": "application/grpc+proto" },
  responseTrailer: { "grpc-status": "0" },
  read: (stream, options) =>
    new Promise((resolve, reject) => {
      const frames = new FrameReader(options.bytesMax);
      let received = 0;
      let message: Message | undefined;
      const take = (chunk: Buffer) => {
        received += chunk.length;
        options.onReceived(received);
        frames.push(chunk);
        try {
          const bytes = frames.next();
          if (bytes && message) throw protocolError("received extra input message", Code.Unimplemented);
          if (bytes) message = options.parse(bytes);
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
    }),
  async answer({ responseHeader: headers, responseTrailer: trailers }, compression, serve) {
    const answer = { status: 200, headers, trailers };
    if (compression) headers.set("grpc-encoding", compression.name);
    try {
      const data = await serve();
      if (!data) return { ...answer, body: undefined };
      const envelope = { flags: 0, data };
      const sent = compression ? await envelopeCompress(envelope, compression, compressBytesMin) : envelope;
      return { ...answer, body: encodeEnvelope(sent.flags, sent.data) };
    } catch (error) {
      setTrailerStatus(trailers, blame(error));
      return { ...answer, body: undefined, error };
    }
  },
};

const connectTimeoutOf = (headers: IncomingHttpHeaders) =>
  parseConnectTimeout(one(headers["connect-timeout-ms"]), timerMsMax);

const connect: Wire = {
  name: "connect",
  isPlain: (headers) =>
    headers["content-type"] === "application/proto" &&
    (headers["content-encoding"] ?? "identity") === "identity" &&
    connectTimeoutOf(headers).error === undefined,
  timeoutMsOf: (headers) => connectTimeoutOf(headers).timeoutMs,
  encodingHeader: "accept-encoding",
  responseHeader: { "content-type": "application/proto" },
  responseTrailer: {},
  read: (stream, { bytesMax, parse, onReceived }) =>
    new Promise<Buffer | undefined>((resolve, reject) => {
      const chunks: Buffer[] = [];
      let received = 0;
      const take = (chunk: Buffer) => {
        received += chunk.length;
        onReceived(received);
        if (received <= bytesMax) return void chunks.push(chunk);
        stream.off("data", take).resume();
        reject(new ConnectError(`message size is larger than ${bytesMax}`, Code.ResourceExhausted));
      };
      stream.on("data", take);
      stream.once("end", () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
      stream.once("close", () => resolve(undefined));
    }).then((bytes) => bytes && parse(bytes)),
  async answer({ responseHeader, responseTrailer }, compression, serve) {
    let answer: Pick<Answer, "status" | "body" | "error">;
    try {
      answer = { status: 200, body: await serve() };
    } catch (error) {
      const told = blame(error);
      responseHeader.set("content-type", "application/json");
      mergeNonProtocolHeaders(responseHeader, told.metadata);
      answer = { status: codeToHttpStatus(told.code), body: errorToJsonBytes(told, undefined), error };
    }
    let { body = nothing } = answer;
    if (compression && body.length >= compressBytesMin) {
      body = await compression.compress(body);
      responseHeader.set("content-encoding", compression.name);
    }
    const headers = trailerMux(responseHeader, responseTrailer);
    headers.set("content-length", String(body.length));
    return { ...answer, headers, body };
  },
};

export const wires: readonly Wire[] = [grpc, connect];
