/**
 * Names that people of orgs choose, asked of a name server of the test: slow, silent, and changing.
 */
import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { AddressRefused, createReach, parseNetworks } from "../../../src/network/addresses.ts";
import { createNames } from "../../../src/network/names.ts";
import { post } from "../../../src/network/outgoing.ts";

const typeA = 1;

/**
 * A name server: the IPv4 addresses of a name; none: there is no such name; undefined: no answer.
 */
async function openNameServer(addressesOf: (name: string) => string[] | undefined): Promise<string> {
  const server = createSocket("udp4");
  server.on("message", (query, from) => {
    let end = 12;
    const labels: string[] = [];
    for (let length = query[end] ?? 0; length > 0; length = query[end] ?? 0) {
      labels.push(query.subarray(end + 1, end + 1 + length).toString());
      end += length + 1;
    }
    const found = addressesOf(labels.join("."));
    if (!found) return;
    const isAsked = query.readUInt16BE(end + 1) === typeA;
    const answers = isAsked ? found : [];
    const header = Buffer.from(query.subarray(0, 12));
    header.writeUInt16BE(found.length === 0 ? 0x8183 : 0x8180, 2);
    for (const [place, count] of [1, answers.length, 0, 0].entries())
      header.writeUInt16BE(count, 4 + 2 * place);
    const records = answers.map((address) =>
      Buffer.from([0xc0, 0x0c, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split(".").map(Number)]),
    );
    server.send(Buffer.concat([header, query.subarray(12, end + 5), ...records]), from.port, from.address);
  });
  await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `127.0.0.1:${server.address().port}`;
}

/** Milliseconds within which a name has to be found; a silent name takes 6 s. */
const soonMs = 4_000;

test("forty names whose server never answers hold up no other name, of this server or of the system", async () => {
  const server = await openNameServer((name) =>
    name.endsWith("slow.example") ? undefined : ["203.0.113.9"],
  );
  const find = createNames({ servers: [server] });
  const silent = Array.from({ length: 40 }, (_, place) => find(`h${place}.slow.example`));
  const ends = Promise.allSettled(silent);
  const startedAt = performance.now();
  expect(await find("Quick.Example")).toEqual([{ address: "203.0.113.9", family: 4 }]);
  expect((await lookup("localhost")).address).toMatch(/^(127\.0\.0\.1|::1)$/);
  expect(performance.now() - startedAt).toBeLessThan(soonMs);
  const reasons = (await ends).map((end) => (end.status === "rejected" ? String(end.reason) : "found"));
  expect(reasons[0]).toContain("the name servers of h0.slow.example do not answer");
  expect(new Set(reasons).size).toBe(40);
}, 60_000);

test("a name that is asked for by many is asked of its server once", async () => {
  let asked = 0;
  const server = await openNameServer(() => {
    asked++;
    return ["203.0.113.9"];
  });
  const find = createNames({ servers: [server] });
  await Promise.all(Array.from({ length: 50 }, () => find("many.example")));
  // One question for each family of addresses.
  expect(asked).toBe(2);
});

test("a name of the hosts file, and one that only the system knows, are found", async () => {
  const find = createNames({ servers: [await openNameServer(() => [])] });
  expect((await find("localhost")).map(({ address }) => address)).toContain("127.0.0.1");
  await expect(find("nowhere.example.invalid")).rejects.toThrow(/nowhere\.example\.invalid/);
});

test("a name that leads elsewhere at the dial than when it was judged reaches nothing", async () => {
  let received = 0;
  const receiver = createServer((_, answer) => {
    received++;
    answer.end("ok");
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void receiver.close());
  const answers = [["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1", "169.254.169.254"]];
  let turn = 0;
  const names = createNames({ servers: [await openNameServer(() => answers[turn])] });
  const reach = createReach(parseNetworks(""), names);
  await reach.requireHost("rebound.example");
  for (turn = 1; turn < answers.length; turn++) {
    const sent = post(new URL(`http://rebound.example:${(receiver.address() as AddressInfo).port}/`), {
      ...{ headers: {}, body: "{}", reach, signal: AbortSignal.timeout(5_000), redirectsMax: 3 },
    });
    await expect(sent).rejects.toThrow(AddressRefused);
  }
  expect(received).toBe(0);
});
