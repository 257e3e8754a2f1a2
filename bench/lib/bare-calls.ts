/**
 * Unary gRPC calls on a bare HTTP/2 connection: what the protocol asks for, and no more. Beside the
 * calls of the typed clients they show which part of a wait is the caller's own.
 */
import { type ClientHttp2Session, connect } from "node:http2";
import type { DescMethodUnary } from "@bufbuild/protobuf";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { framed, prefixBytes } from "../../src/server/device/stream/grpc-frames.ts";

export class BareCaller {
  readonly #session: ClientHttp2Session;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.#session = connect(url);
    this.#token = token;
  }

  call<Input extends DescMessage, Output extends DescMessage>(
    method: DescMethodUnary<Input, Output>,
    input: MessageInitShape<Input>,
  ) {
    const stream = this.#session.request({
      ":method": "POST",
      ":path": `/${method.parent.typeName}/${method.name}`,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${this.#token}`,
    });
    stream.end(framed(toBinary(method.input, create(method.input, input))));
    return new Promise<ReturnType<typeof fromBinary<Output>>>((resolve, reject) => {
      const chunks: Buffer[] = [];
      let status: unknown;
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("trailers", (trailers) => {
        status = trailers["grpc-status"];
      });
      stream.on("error", reject);
      stream.on("close", () => {
        if (status !== "0") return reject(new Error(`the call ended with status ${String(status)}`));
        resolve(fromBinary(method.output, Buffer.concat(chunks).subarray(prefixBytes)));
      });
    });
  }

  close(): void {
    this.#session.close();
  }
}
