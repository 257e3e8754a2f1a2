/**
 * Requests of adapters that use the global `fetch`. Within {@link confined} they go where the
 * operator lets what an org configures go (src/network/addresses.ts), and through the environment's
 * proxy; all other code keeps Node's `fetch`. Adapters take an address from an org, and no `fetch`.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { Readable } from "node:stream";
import type { Reach } from "../../../network/addresses.ts";
import { outgoingRequest } from "../../../network/outgoing.ts";

/** Maximum bytes of an answer: of a call of a platform's API, or of a list of its messages. */
export const answerBytesMax = 8_388_608;

const reaches = new AsyncLocalStorage<Reach>();
let isInstalled = false;

/** Runs `fn`; its requests, also the later ones of what it starts, keep to `reach`. */
export function confined<T>(reach: Reach, fn: () => T): T {
  if (!isInstalled) {
    isInstalled = true;
    const plain = globalThis.fetch;
    globalThis.fetch = (input, init) => {
      const own = reaches.getStore();
      return own ? fetchWithin(own, input, init) : plain(input, init);
    };
  }
  return reaches.run(reach, fn);
}

/** `fetch` to addresses that `reach` allows; redirects are not followed. */
export async function fetchWithin(
  reach: Reach,
  input: string | URL | Request,
  init?: RequestInit,
): Promise<Response> {
  const request = new Request(input, init);
  const url = new URL(request.url);
  // A socket looks up names alone.
  if (isIP(url.hostname.replace(/^\[|\]$/g, "")) !== 0) await reach.requireHost(url.hostname);
  const body = request.body ? Buffer.from(await request.arrayBuffer()) : undefined;
  const headers = Object.fromEntries(request.headers);
  if (body) headers["content-length"] = String(body.length);
  return new Promise((resolve, reject) => {
    const sent = outgoingRequest(
      url,
      { method: request.method, headers, lookup: reach.lookup, signal: request.signal },
      (answer) => {
        try {
          resolve(responseOf(answer));
        } catch (error) {
          answer.destroy();
          reject(error as Error);
        }
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

/** Throws for a status that no Response has, such as 999. */
function responseOf(answer: IncomingMessage): Response {
  const status = answer.statusCode ?? 502;
  const isEmpty = status === 204 || status === 205 || status === 304;
  if (isEmpty) answer.resume();
  const headers = Object.entries(answer.headers).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, [value].flat().join(", ")] as [string, string]],
  );
  return new Response(isEmpty ? null : boundedText(answer), { status, headers });
}

/** What comes of the answer; fails beyond the bound, since adapters keep all of it. */
function boundedText(answer: IncomingMessage): ReadableStream<Uint8Array> {
  let left = answerBytesMax;
  const bound = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      left -= chunk.length;
      if (left < 0) throw new Error(`answers with more than ${answerBytesMax} bytes`);
      controller.enqueue(chunk);
    },
  });
  return (Readable.toWeb(answer) as ReadableStream<Uint8Array>).pipeThrough(bound);
}
