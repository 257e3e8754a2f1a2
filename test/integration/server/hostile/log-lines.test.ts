/**
 * Texts that attempt to forge lines of the log, or to take over the terminal of a person who reads
 * a table.
 */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect as connectSocket } from "node:net";
import { promisify } from "node:util";
import { Os } from "@pinion/client";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, dial, enrolDevice } from "../../../support/device.ts";
import { startTarget, type Target } from "../../../support/hostile/target.ts";
import { takeOn } from "../../../support/work.ts";

const main = inject("pinionMain");
const database = useDatabase({ per: "file" });
let target: Target;
beforeAll(async () => {
  target = await startTarget(database.url, { PINION_LOG_LEVEL: "trace" });
}, 60_000);
afterAll(() => target?.stop());

const evil = 'a\n{"level":60,"msg":"forged"}\r\n\u001b[2J\u001b]0;title\u0007\u009b31m\u202eb';

/** Characters that move the cursor, end a line, or reverse the text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
const dangerous = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

test("the log stays one JSON object a line, and tables show odd texts escaped, whoever chose them", {
  timeout: 120_000,
}, async () => {
  const { clients, url, token } = target;
  // Fields for free text store the text unchanged; other fields refuse the text. Both may be
  // logged.
  const attempt = async (call: () => Promise<unknown>) => call().catch((error: Error) => error);
  const { joinCode } = await clients.fleet.createJoinCode({});
  await attempt(() =>
    clients.device.enroll({
      joinCode,
      installId: randomUUID(),
      label: evil,
      os: Os.LINUX,
      appVersion: evil,
    }),
  );
  const device = await enrolDevice(clients);
  await attempt(() =>
    clients.fleet.updateDevice({ deviceId: device.deviceId, label: evil, updateMask: { paths: ["label"] } }),
  );
  await attempt(() => clients.watchers.createWatcher({ slug: evil, spec: { name: evil, prompt: evil } }));
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "odd", prompt: evil, deviceId: device.deviceId },
  });
  await attempt(() =>
    clients.watchers.updateWatcher({
      watcherId: watcher!.id,
      spec: { name: evil },
      updateMask: { paths: ["name"] },
    }),
  );
  await attempt(() => clients.tokens.createToken({ kind: 1, label: evil, scopes: ["read"] }));
  await attempt(() => clients.runs.getRun({ runId: evil }));
  await fetch(`${url}/${encodeURIComponent(evil)}`, { headers: { "user-agent": encodeURIComponent(evil) } });
  await fetch(`${url}/pinion.v1.RunService/ListRuns`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "user-agent": "x \u001b[31m",
      authorization: "Bearer \u001b[31m",
    },
    body: evil,
  }).catch(() => undefined);

  const stream = await connect(url, device, { appVersion: evil.slice(0, 20) });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const assignment = await takeOn(stream);
  await stream.complete(assignment, evil, Outcome.FAILED, evil);
  await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await stream.complete(await takeOn(stream), evil);
  const strange = dial(url, device.token);
  strange.hello(device, { agentKinds: [evil] });
  await Promise.race([strange.ended, strange.next("welcome")]);

  for (const line of target.log) {
    expect(() => JSON.parse(line) as object, line).not.toThrow();
    expect(line).not.toMatch(dangerous);
    expect((JSON.parse(line) as { msg: string }).msg).not.toBe("forged");
  }
  expect(target.log.length).toBeGreaterThan(10);

  for (const args of [
    ["devices", "list"],
    ["watchers", "list"],
    ["watchers", "get", watcher!.id],
    ["windows", "list", watcher!.id],
    ["runs", "list"],
    ["runs", "get", run!.id],
    ["tokens", "list"],
    ["events"],
  ]) {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, ...args], {
      env: { ...process.env, PINION_URL: url, PINION_TOKEN: token, NO_COLOR: "1" },
    });
    expect([args.join(" "), stdout.length > 0]).toEqual([args.join(" "), true]);
    expect([args.join(" "), dangerous.exec(stdout + stderr)?.index]).toEqual([args.join(" "), undefined]);
  }
});

/** Requests that Node's parser refuses, each with the token in it. */
const malformed = (token: string) => {
  const head = `POST /pinion.v1.FleetService/ListDevices HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\n`;
  return [
    `${head}X: a\u0001b\r\n\r\n`,
    `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${head}Content-Length: x\r\n\r\n`,
    `${head}Transfer-Encoding: chunked\r\n\r\n2;${"a".repeat(20_000)}\r\n`,
    `${head}Transfer-Encoding: chunked\r\n\r\n-2\r\n`,
    `${head}${"x".repeat(20_000)}: y\r\n\r\n`,
    `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${head}`,
    `GET /${token}\u0001 HTTP/1.1\r\n\r\n`,
  ];
};

test("a request that cannot be read leaves no secret in the log, neither as text nor as bytes, and no warning", async () => {
  const { token, port, log } = target;
  const before = log.length;
  for (const request of malformed(token)) {
    const socket = connectSocket(port, "127.0.0.1").on("error", () => {});
    socket.write(request);
    await once(socket.resume(), "close");
  }
  const broke = () => log.slice(before).filter((line) => line.includes("a connection broke"));
  await expect.poll(() => broke().length).toBeGreaterThanOrEqual(6);
  const bytes = [...Buffer.from(token.slice(8, 30))].join(",");
  for (const line of log.slice(before)) {
    expect(line).not.toContain(token.slice(8, 30));
    expect(line).not.toContain(bytes);
    expect(line.length).toBeLessThan(10_000);
  }
  expect(broke().filter((line) => (JSON.parse(line) as { level: number }).level >= 40)).toEqual([]);
});
