/** Downloads for new devices: the scripts, the list, the programs. */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
const place = mkdtempSync(join(tmpdir(), "pinion-downloads-"));
const directory = join(place, "downloads");
const program = Buffer.from("#!/bin/sh\necho a program\n");
const sha256 = createHash("sha256").update(program).digest("hex");
let replica: TestReplica;

beforeAll(async () => {
  mkdirSync(directory);
  writeFileSync(join(directory, "piniond-linux-x64"), program);
  writeFileSync(join(place, "secret"), "not to be had");
  const downloads = [
    { program: "piniond", system: "linux-x64", file: "piniond-linux-x64", bytes: program.length, sha256 },
    { program: "pinion", system: "linux-x64", file: "../secret", bytes: 13, sha256 },
  ];
  writeFileSync(join(directory, "manifest.json"), JSON.stringify({ version: "0.1.0", downloads }));
  replica = await openTestReplica(database.url, { PINION_DOWNLOADS: directory });
});
afterAll(async () => {
  await replica.stop();
  rmSync(place, { recursive: true, force: true });
});

test("a program is listed with its digest and is fetched without a token, by GET and HEAD", async () => {
  const list = await (await fetch(`${replica.url}/downloads/manifest.txt`)).text();
  expect(list).toBe(`${sha256} piniond linux-x64 piniond-linux-x64\n`);
  const file = await fetch(`${replica.url}/downloads/piniond-linux-x64`);
  expect(file.headers.get("content-length")).toBe(String(program.length));
  expect(Buffer.from(await file.arrayBuffer())).toEqual(program);
  const head = await fetch(`${replica.url}/downloads/piniond-linux-x64`, { method: "HEAD" });
  expect([head.status, await head.text()]).toEqual([200, ""]);
});

test("nothing beside the listed files can be had", async () => {
  for (const path of ["../secret", "%2e%2e/secret", "..%2fsecret", "offers.json", "", "piniond-linux-x64/"]) {
    const status = await new Promise<number | undefined>((done, fail) => {
      // A raw request: fetch would normalize the dots in the path.
      const { hostname, port } = new URL(replica.url);
      httpRequest({ hostname, port, path: `/downloads/${path}` }, (answer) => {
        answer.resume();
        done(answer.statusCode);
      })
        .on("error", fail)
        .end();
    });
    expect(status, path).toBe(404);
  }
});

test("the scripts dial the server by the name that the request reached it by", async () => {
  const port = new URL(replica.url).port;
  const shell = await (await fetch(`http://localhost:${port}/install.sh`)).text();
  expect(shell).toContain(`server='http://localhost:${port}'`);
  expect(shell).not.toContain("{{");
  const power = await (await fetch(`${replica.url}/install.ps1`)).text();
  expect(power).toContain(`$server = '${replica.url}'`);
});

test("what PINION_PUBLIC_URL says goes before, and what could end a quote is refused", async () => {
  const named = await openTestReplica(database.url, {
    PINION_PUBLIC_URL: "https://pinion.example.org/base/",
  });
  expect(await (await fetch(`${named.url}/install.sh`)).text()).toContain(
    "server='https://pinion.example.org/base'",
  );
  await named.stop();
  const odd = await openTestReplica(database.url, { PINION_PUBLIC_URL: "https://pinion.example.org/it's" });
  const answer = await fetch(`${odd.url}/install.sh`);
  expect([answer.status, await answer.text()]).toEqual([500, expect.stringContaining("PINION_PUBLIC_URL")]);
  await odd.stop();
});

test("a name that is not this server's is told nothing, as everywhere on loopback", async () => {
  const { hostname, port } = new URL(replica.url);
  const status = await new Promise<number | undefined>((done) => {
    httpRequest({ hostname, port, path: "/install.sh", headers: { host: "evil.example.org" } }, (answer) => {
      answer.resume();
      done(answer.statusCode);
    }).end();
  });
  expect(status).toBe(421);
});
