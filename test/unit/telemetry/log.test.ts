/** The contents of a log line, and the values that never appear. */
import { expect, test } from "vitest";
import { createLogger } from "../../../src/telemetry/log.ts";
import { prettyLine } from "../../../src/telemetry/log-lines.ts";
import { newJoinCode, newToken } from "../../../src/values/ids.ts";

function logging(format?: "json" | "pretty") {
  const lines: string[] = [];
  const log = createLogger({
    level: "trace",
    name: "test",
    format,
    destination: { write: (line: string) => void lines.push(line) },
  });
  return { log, lines };
}

test("a secret is redacted under its key, and wherever it looks like one", () => {
  const { log, lines } = logging();
  const [pat, code] = [newToken("pat"), newJoinCode()];
  log.info({ token: "anything", device: { attemptToken: "fence", password: "p" }, id: "kept" }, "one");
  log.info({ header: `Bearer ${pat}`, list: [[{ deep: pat }]] }, `two ${code}`);
  log
    .child({ why: pat })
    .error({ err: new Error(`no way in at postgres://pinion:hunter2@db/pinion`) }, "three");
  const text = lines.join("");
  for (const secret of ["anything", "fence", '"p"', pat, pat.slice(8, 30), code, "hunter2"]) {
    expect(text).not.toContain(secret);
  }
  expect(text).toContain("postgres://pinion:[redacted]@db/pinion");
  expect(text).toContain('"id":"kept"');
  // Each line is still one JSON object.
  for (const line of lines) expect(JSON.parse(line)).toMatchObject({ name: "test" });
});

test("an error's bytes are counted and not shown, at any depth, and its texts are bounded", () => {
  const { log, lines } = logging();
  const pat = newToken("pat");
  const packet = Buffer.from(`GET / HTTP/1.1\r\nauthorization: Bearer ${pat}\r\n`);
  const error = Object.assign(new Error("x".repeat(1_000_000)), {
    ...{ rawPacket: packet, code: "HPE_INVALID_HEADER_TOKEN", at: new Date(0), offset: 5n },
    inner: { list: [new Uint8Array(packet), new DataView(new ArrayBuffer(3))], buffer: new ArrayBuffer(4) },
    cause: Object.assign(new Error("why"), { rawPacket: packet }),
  });
  log.error({ err: error }, "broke");
  const line = lines.join("");
  expect(line).not.toContain([...packet.subarray(0, 8)].join(","));
  expect(line.length).toBeLessThan(30_000);
  expect(JSON.parse(line).err).toMatchObject({
    type: "Error",
    ...{ rawPacket: `[${packet.length} bytes]`, code: "HPE_INVALID_HEADER_TOKEN" },
    ...{ at: new Date(0).toISOString(), offset: "5" },
    inner: { list: [`[${packet.length} bytes]`, "[3 bytes]"], buffer: "[4 bytes]" },
  });
});

test("a line for people has the time, the level, the message and the fields", () => {
  const { log, lines } = logging("pretty");
  log.warn({ runId: "r-1", ms: 12.5, what: "two words" }, "a run is late");
  expect(lines[0]).toMatch(
    /^\d\d:\d\d:\d\d\.\d{3} warn {2}a run is late runId=r-1 ms=12\.5 what="two words"\n$/,
  );
  log.error({ err: new Error("broke") }, "oh");
  expect(lines[1]).toMatch(/ error oh\nError: broke\n {4}at /);
});

test("a line for people takes no orders for the terminal from what others wrote", () => {
  const entry = { level: 30, time: 0, msg: "a\u001b[2Jb", label: "\u001b[31mred" };
  expect(prettyLine(JSON.stringify(entry))).not.toContain("\u001b[");
  expect(prettyLine("no JSON\n")).toBe("no JSON\n");
});
