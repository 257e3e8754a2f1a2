/** A collector that accepts OTLP over HTTP and decodes the protobuf. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { onTestFinished } from "vitest";

export type CollectedSpan = {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  /** Empty for a root. */
  parentSpanId: string;
  startMs: number;
  endMs: number;
  attributes: Record<string, unknown>;
  isError: boolean;
};

export type Collector = { url: string; spans: CollectedSpan[]; requests: { path: string; type: string }[] };

export async function startCollector(): Promise<Collector> {
  const spans: CollectedSpan[] = [];
  const requests: Collector["requests"] = [];
  const server = createServer(async (request, response) => {
    const body = await buffer(request);
    requests.push({ path: request.url ?? "", type: request.headers["content-type"] ?? "" });
    spans.push(...read(request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body));
    response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, spans, requests };
}

/** The fields of one message, by number, undecoded: bytes, or numbers. */
function fieldsOf(bytes: Uint8Array): Map<number, (Uint8Array | bigint)[]> {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, (Uint8Array | bigint)[]>();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    let value: Uint8Array | bigint;
    if (type === WireType.LengthDelimited) value = reader.bytes();
    else if (type === WireType.Bit64) value = BigInt(reader.fixed64());
    else if (type === WireType.Varint) value = BigInt(reader.uint64());
    else value = BigInt(reader.fixed32());
    fields.set(number, [...(fields.get(number) ?? []), value]);
  }
  return fields;
}

const messages = (fields: ReturnType<typeof fieldsOf>, number: number) =>
  (fields.get(number) ?? []).map((value) => fieldsOf(value as Uint8Array));
const text = (value: Uint8Array | bigint | undefined) => Buffer.from((value as Uint8Array) ?? []).toString();
const hex = (value: Uint8Array | bigint | undefined) =>
  Buffer.from((value as Uint8Array) ?? []).toString("hex");

/** opentelemetry.proto.common.v1.KeyValue: key = 1, value = 2 { string = 1, bool = 2, int = 3 }. */
function attributesOf(pairs: ReturnType<typeof messages>): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const [value] = messages(pair, 2);
      const string = value!.get(1)?.[0];
      return [
        text(pair.get(1)?.[0]),
        string ? text(string) : Number(value!.get(3)?.[0] ?? value!.get(2)?.[0]),
      ];
    }),
  );
}

/**
 * ExportTraceServiceRequest: resource_spans = 1 { resource = 1, scope_spans = 2 { spans = 2 } }.
 */
function read(body: Uint8Array): CollectedSpan[] {
  return messages(fieldsOf(body), 1).flatMap((resourceSpans) => {
    const [resource] = messages(resourceSpans, 1);
    const service = String(attributesOf(messages(resource!, 1))["service.name"]);
    return messages(resourceSpans, 2)
      .flatMap((scope) => messages(scope, 2))
      .map((span) => ({
        service,
        name: text(span.get(5)?.[0]),
        traceId: hex(span.get(1)?.[0]),
        spanId: hex(span.get(2)?.[0]),
        parentSpanId: hex(span.get(4)?.[0]),
        startMs: Number(span.get(7)![0]) / 1e6,
        endMs: Number(span.get(8)![0]) / 1e6,
        attributes: attributesOf(messages(span, 9)),
        isError: messages(span, 15).some((status) => status.get(3)?.[0] === 2n),
      }));
  });
}
