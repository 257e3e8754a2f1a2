/**
 * The blame for a message that cannot be read. Connect answers binary messages that are no
 * protobuf, and compressed bytes that end too early, as errors of the server (`internal`), which
 * callers send again for ever. They are mistakes of the caller: `invalid_argument`.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type Compression,
  createAsyncIterable,
  encodeEnvelope,
  type UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import { trailerFlag } from "@connectrpc/connect/protocol-grpc-web";

/** The beginning of Connect's words for a received message that cannot be parsed. */
const unreadable = "parse binary: ";
const grpcUnreadable = encodeURIComponent(unreadable);
/** Flags and length. */
const frameHeadBytes = 5;

/** The compression, with an error of the caller for bytes that cannot be decompressed. */
export function blamingCompression(compression: Compression): Compression {
  return {
    ...compression,
    decompress: async (bytes, readMaxBytes) => {
      try {
        return await compression.decompress(bytes, readMaxBytes);
      } catch (error) {
        const { code, rawMessage } = ConnectError.from(error);
        throw code === Code.Internal ? new ConnectError(rawMessage, Code.InvalidArgument) : error;
      }
    },
  };
}

/** The error of a call that was read by no handler of Connect, blamed alike. */
export function blame(failure: unknown): ConnectError {
  if (!(failure instanceof ConnectError)) return new ConnectError("internal error", Code.Internal);
  const { rawMessage } = failure;
  return rawMessage.startsWith(unreadable) ? new ConnectError(rawMessage, Code.InvalidArgument) : failure;
}

/** The response, with an error of the caller for a message that cannot be parsed. */
export async function blameCaller(response: UniversalServerResponse): Promise<UniversalServerResponse> {
  const { status, header, body, trailer } = response;
  if (trailer?.get("grpc-message")?.startsWith(grpcUnreadable)) {
    trailer.set("grpc-status", String(Code.InvalidArgument));
    return response;
  }
  if (body && header?.get("content-type")?.startsWith("application/grpc-web")) {
    return { ...response, body: blamedFrames(body) };
  }
  if (status !== 500 || !body || !isUnaryError(header)) return response;
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const told = Buffer.concat(chunks);
  const error = JSON.parse(told.toString()) as { message?: string };
  if (!error.message?.startsWith(unreadable)) return { ...response, body: createAsyncIterable([told]) };
  const blamed = Buffer.from(JSON.stringify({ ...error, code: "invalid_argument" }));
  header?.set("content-length", String(blamed.length));
  return { ...response, status: 400, body: createAsyncIterable([blamed]) };
}

/** gRPC-Web has its trailers in the last frame of the body; frames come one by one. */
async function* blamedFrames(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const frame of body) {
    const trailers = frame[0] === trailerFlag ? Buffer.from(frame.subarray(frameHeadBytes)).toString() : "";
    if (!trailers.includes(`grpc-message: ${grpcUnreadable}`)) yield frame;
    else {
      const blamed = trailers.replace(/^grpc-status: \d+/m, `grpc-status: ${Code.InvalidArgument}`);
      yield encodeEnvelope(trailerFlag, Buffer.from(blamed));
    }
  }
}

/** Connect tells the errors of unary calls as JSON; short ones are not compressed. */
function isUnaryError(header: Headers | undefined): boolean {
  return header?.get("content-type") === "application/json" && !header.has("content-encoding");
}
