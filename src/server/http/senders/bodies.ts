/** The bodies of requests from senders without a token: hooks and chat platforms. */
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import type { Crowd } from "../crowd/crowd.ts";

export const bodyBytesMax = 1_048_576;
/**
 * Time in ms in which a sender of too much may send its rest, which is thrown away, to read the
 * answer.
 */
const restMsMax = 2_000;

/**
 * The body; undefined for a body above the limit, whose sender still reads the answer. The crowd
 * counts the bytes that the request holds.
 */
export async function readBody(
  request: IncomingMessage | Http2ServerRequest,
  crowd: Pick<Crowd, "find"> | undefined,
): Promise<Buffer | undefined> {
  const visit = crowd?.find(
    request.httpVersionMajor === 2 ? (request as Http2ServerRequest).stream : (request as IncomingMessage),
  );
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Without `destroyOnReturn` the connection would end before the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    bytes += (chunk as Buffer).length;
    if (bytes > bodyBytesMax) {
      request.resume();
      setTimeout(() => request.destroy(), restMsMax).unref();
      return undefined;
    }
    visit?.holdAtLeast(bytes);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}
