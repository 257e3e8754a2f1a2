/**
 * `fetch` for the provider's client, over the process's common path for outgoing requests
 * (src/network/outgoing.ts).
 */
import type { OutgoingHttpHeaders } from "node:http";
import { outgoingRequest } from "../../network/outgoing.ts";

/** A provider's answers are small. */
const answerBytesMax = 1024 * 1024;
const answerMsMax = 10_000;

type Options = { body?: unknown; headers: unknown; method: string; signal?: AbortSignal | undefined };

export function outgoingFetch(url: string, options: Options): Promise<Response> {
  return new Promise((resolve, reject) => {
    const headers = Object.fromEntries(
      new Headers(options.headers as Record<string, string>),
    ) as OutgoingHttpHeaders;
    const body = options.body === undefined || options.body === null ? "" : String(options.body);
    const request = outgoingRequest(
      new URL(url),
      {
        method: options.method,
        headers: { ...headers, "content-length": Buffer.byteLength(body) },
        signal: AbortSignal.any([
          AbortSignal.timeout(answerMsMax),
          ...(options.signal ? [options.signal] : []),
        ]),
      },
      (answer) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > answerBytesMax) request.destroy(new Error("the provider's answer is too long"));
          else chunks.push(chunk);
        });
        answer.on("error", reject);
        answer.on("end", () => {
          const found = new Headers();
          for (const [name, value] of Object.entries(answer.headers)) {
            for (const each of Array.isArray(value) ? value : [value])
              if (each !== undefined) found.append(name, each);
          }
          const status = answer.statusCode ?? 502;
          const isEmpty = status === 204 || status === 304;
          try {
            resolve(new Response(isEmpty ? null : Buffer.concat(chunks), { status, headers: found }));
          } catch (error) {
            // No Response has a status such as 999.
            reject(error as Error);
          }
        });
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}
