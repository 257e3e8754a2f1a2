/**
 * Page tokens that no list has given: every list refuses them as the caller's mistake, or begins
 * there.
 */
import { expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";
import { call, methods, shortName } from "../access/every-rpc.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

const id = "0190f5fe-7c00-7a00-8000-000000000001";
const texts = [
  "",
  "a\0b",
  "\ud800",
  "' or 1=1 --",
  "x".repeat(500),
  "2026-02-30 10:00:00+00",
  "294277-01-01",
  "infinity",
];
/** Keys of any list: with ids, texts, numbers and objects in each place. */
const keys: unknown[] = [
  [id],
  [id, id],
  ...texts.flatMap((text) => [
    [text],
    [text, text, text],
    [text, id, text],
    [1, id, text],
    { label: text, id },
  ]),
  ...[-1, 0, 1.5, 2 ** 53 - 1, 2 ** 53, -(2 ** 53), 1e308].flatMap((number) => [[number], [number, id, "q"]]),
  [null],
  [[[]]],
  {},
  { deviceId: id, id },
];
const encode = (text: string) => Buffer.from(text).toString("base64url");

test("every list, with every forged token", { timeout: 120_000 }, async () => {
  const device = await enrolDevice(replicas.here.clients);
  const lists = methods.filter(({ input }) => input.fields.some(({ name }) => name === "page_token"));
  expect(lists.length).toBeGreaterThan(15);
  const wrong: string[] = [];
  for (const list of lists) {
    const secret = list.parent.name === "DeviceService" ? device.token : replicas.here.token;
    const ofList = keys.map((key) => encode(JSON.stringify([list.name, key])));
    const others = ["\0", "%00", "null", "😀", "AAAA", "x".repeat(1_000), "x".repeat(1_001)];
    const further = [encode("[".repeat(700)), encode(JSON.stringify(["ListOthers", [id]])), encode("null")];
    for (const pageToken of [...ofList, ...others, ...further]) {
      const { code } = await call(replicas.here.url, list, secret, { pageSize: 5, pageToken });
      if (code !== "ok" && code !== "InvalidArgument") {
        wrong.push(`${shortName(list)} ${code} ${Buffer.from(pageToken, "base64url")}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});
