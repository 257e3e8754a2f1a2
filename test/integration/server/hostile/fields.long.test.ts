/**
 * Every field of every unary rpc at its limits and beyond: refused with a reason, or done; never an
 * internal error.
 */
import { readdirSync } from "node:fs";
import { type DescMethodUnary, type DescService, type Message, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";
import { useDatabase } from "../../../support/database.ts";
import { mutationsOf } from "../../../support/hostile/fields.ts";
import { quantile, startTarget, type Target, withstand } from "../../../support/hostile/target.ts";

const folder = new URL("../../../../clients/ts/src/gen/pinion/v1/", import.meta.url);
const services: DescService[] = [];
for (const file of readdirSync(folder).filter((name) => name.endsWith("_pb.js"))) {
  const module = (await import(new URL(file, folder).href)) as Record<string, { kind?: string }>;
  services.push(...(Object.values(module).filter((it) => it.kind === "service") as unknown as DescService[]));
}
const methods = services
  .flatMap((service) => service.methods)
  .filter((method): method is DescMethodUnary => method.methodKind === "unary");

const database = useDatabase({ per: "file" });
let target: Target;
let ids: Record<string, string>;
beforeAll(async () => {
  target = await startTarget(database.url);
  const { watcher } = await target.clients.watchers.createWatcher({
    slug: "fuzzed",
    spec: { name: "Fuzzed", prompt: "p" },
  });
  ids = { watcher_id: watcher!.id, agent_id: "pinion-default", slug: "", kind: "webhook" };
}, 60_000);
afterAll(() => target?.stop());

/** These rpcs would delete the resources of the test: they are called with unknown ids. */
const takesAway = /^(Delete|Revoke|Rotate|Remove)/;
const patience = { timeout: 600_000 };
const atOnce = 8;

function transportFor(token: string): Transport {
  return createGrpcTransport({
    baseUrl: target.url,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
}

/** Codes of server faults, which no message may cause. */
const ourFaults = new Set([Code.Internal, Code.Unknown, Code.DataLoss, Code.Unimplemented]);

test("every field of every unary rpc, at its limits and beyond", patience, async () => {
  const asPerson = transportFor(target.token);
  const asDevice = transportFor(target.device.token);
  const wrong: string[] = [];
  const counts = { refusedByRule: 0, refused: 0, done: 0 };
  await withstand(target, "every field of every unary rpc", async () => {
    for (const method of methods) {
      const isDevices = method.parent.typeName === "pinion.v1.DeviceService";
      const client = createClient(method.parent, isDevices ? asDevice : asPerson) as unknown as Record<
        string,
        (message: Message, options: object) => Promise<unknown>
      >;
      const mutations = mutationsOf(method.input, takesAway.test(method.name) ? { slug: "" } : ids);
      const worker = async () => {
        for (const { label, message } of mutations) {
          const name = `${method.parent.name}/${method.name} ${label}`;
          const breaksRule = checkMessage(method.input, message) !== undefined;
          try {
            toBinary(method.input, message);
          } catch {
            // A value that our own encoder cannot write does not reach the server.
            continue;
          }
          try {
            await client[method.localName]!(message, { timeoutMs: 30_000 });
            counts.done += 1;
            if (breaksRule) wrong.push(`${name}: a rule is broken, and it was done`);
          } catch (error) {
            const { code, rawMessage } = ConnectError.from(error);
            if (breaksRule) counts.refusedByRule += 1;
            else counts.refused += 1;
            if (ourFaults.has(code)) wrong.push(`${name}: ${Code[code]} ${rawMessage}`);
          }
        }
      };
      await Promise.all(Array.from({ length: atOnce }, worker));
    }
  });
  process.stderr.write(`  ${JSON.stringify(counts)}\n`);
  wrong.push(...(await unreadableLists()));
  expect(wrong).toEqual([]);
  expect(counts.refusedByRule).toBeGreaterThan(500);
  expect(counts.done).toBeGreaterThan(100);
});

test(
  "structures that are nested too deep, in JSON and in binary, are refused as the caller's mistake",
  patience,
  async () => {
    await withstand(target, "deep nesting", async () => {
      for (const depth of [20, 99, 1_000, 10_000, 100_000]) {
        const schema = `${'{"in":'.repeat(depth)}{}${"}".repeat(depth)}`;
        const json = await post(
          "application/json",
          `{"spec":{"name":"n","prompt":"p","extractionSchema":${schema}}}`,
        );
        const binary = await post("application/proto", watcherWith(nestedStruct(depth)));
        for (const { status, text } of [json, binary]) {
          // For undecodable bytes the library answers "internal", with a text that blames the
          // message.
          const isCallersMistake = status < 500 || /parse (binary|JSON)|cannot decode/i.test(text);
          expect([depth, isCallersMistake, text.slice(0, 200)]).toEqual([depth, true, expect.anything()]);
          expect(text).not.toContain("errorId");
        }
      }
    });
  },
);

/**
 * The lists that fail over what was stored, in JSON, whose writer is stricter than that of binary
 * messages.
 */
async function unreadableLists(): Promise<string[]> {
  const wrong: string[] = [];
  for (const { name, parent } of methods.filter((method) => method.name.startsWith("List"))) {
    const response = await fetch(`${target.url}/${parent.typeName}/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${target.token}` },
      body: JSON.stringify({ pageSize: 500 }),
    });
    if (response.status >= 500) wrong.push(`${name}: ${await response.text()}`);
    else await response.arrayBuffer();
  }
  return wrong;
}

async function post(
  contentType: string,
  body: string | Uint8Array,
): Promise<{ status: number; text: string }> {
  const response = await fetch(`${target.url}/pinion.v1.WatcherService/CreateWatcher`, {
    method: "POST",
    headers: { "content-type": contentType, authorization: `Bearer ${target.token}` },
    body: body as string,
  });
  return { status: response.status, text: await response.text() };
}

/** A CreateWatcherRequest, by hand, with these bytes as its extraction_schema. */
function watcherWith(schema: Buffer): Buffer {
  const spec = [lengthField(1, Buffer.from("n")), lengthField(2, Buffer.from("p")), lengthField(17, schema)];
  return lengthField(2, Buffer.concat(spec));
}

/** A Struct within a Struct, so many times: fields { key: "in", value: { struct_value: … } }. */
function nestedStruct(depth: number): Buffer {
  const key = lengthField(1, Buffer.from("in"));
  // From the inside out only the lengths are needed, so that a hundred thousand levels are fast.
  const heads: Buffer[] = [];
  let size = 0;
  for (let level = 0; level < depth; level += 1) {
    const inner = Buffer.concat([tag(5), varint(size)]);
    const value = Buffer.concat([tag(2), varint(inner.length + size)]);
    const entry = key.length + value.length + inner.length + size;
    const head = Buffer.concat([tag(1), varint(entry), key, value, inner]);
    heads.push(head);
    size += head.length;
  }
  return Buffer.concat(heads.reverse());
}

function lengthField(number: number, bytes: Buffer): Buffer {
  return Buffer.concat([tag(number), varint(bytes.length), bytes]);
}

const tag = (number: number) => varint(number * 8 + 2);

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

test("the quantile of nothing is not a number", () => {
  expect(quantile([], 0.5)).toBeNaN();
  expect(quantile([3, 1, 2], 0.99)).toBe(3);
});
