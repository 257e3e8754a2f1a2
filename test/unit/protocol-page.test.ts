/**
 * docs/protocol.md is complete and right: the page is compared with the proto, with our own daemon,
 * and with its own examples.
 */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { defaultTiming } from "@pinion/client";
import { expect, test } from "vitest";
import { file_pinion_v1_activity } from "#gen/pinion/v1/activity_pb.js";
import { ConnectRequestSchema, DeviceService, file_pinion_v1_device } from "#gen/pinion/v1/device_pb.js";
import { cases } from "../../src/cli/device/conformance/cases.ts";

const root = resolve(import.meta.dirname, "../..");
const page = readFileSync(join(root, "docs/protocol.md"), "utf8");

/** The page's table under "### `Name`". */
function tableOf(name: string): string[] {
  const section = page.split(`\n### \`${name}\`\n`)[1]?.split("\n### ")[0] ?? "";
  return section.split("\n").filter((line) => /^\| \d+ \|/.test(line));
}

/** "| 1 | `install_id` | string |", the form of the page. */
function rowOf(field: DescField): string {
  const base =
    field.message?.typeName ?? field.enum?.typeName ?? ScalarType[field.scalar ?? 0]!.toLowerCase();
  const type = base.replace(/^(google\.protobuf|pinion\.v1)\./, "");
  const isOptional = field.proto.proto3Optional;
  const kind = field.fieldKind === "list" ? "repeated " : isOptional ? "optional " : "";
  const listed =
    field.fieldKind === "list" && field.listKind === "scalar" ? ScalarType[field.scalar].toLowerCase() : type;
  return `| ${field.number} | \`${field.name}\` | ${kind}${field.fieldKind === "list" ? listed : type} |`;
}

/** The enums used by the file's messages, including enums of other files. */
function usedEnums(messages: readonly DescMessage[]): DescEnum[] {
  const used = messages.flatMap(({ fields }) => fields.flatMap((field) => field.enum ?? []));
  return [...new Map(used.map((each) => [each.typeName, each])).values()];
}

const messages = [...file_pinion_v1_device.messages, ...file_pinion_v1_activity.messages];

test.each(messages.map((message) => [message.name, message] as const))(
  "the page lists every field of %s, as the proto has it",
  (name, message) => {
    const rows = tableOf(name);
    const wanted = message.fields.map(rowOf);
    expect(rows.map((row, index) => row.slice(0, wanted[index]?.length))).toEqual(wanted);
    expect(rows.filter((row) => row.endsWith("|  |"))).toEqual([]);
  },
);

test.each(usedEnums(messages).map((each) => [each.name, each] as const))(
  "the page lists every value of %s, as the proto has it",
  (name, each) => {
    const rows = tableOf(name).map((row) => row.split(" | ").slice(0, 2).join(" | "));
    expect(rows).toEqual(each.values.map((value) => `| ${value.number} | \`${value.name}\``));
  },
);

test("every rpc of the service has its place, and every verdict and reason is explained in the text", () => {
  const text = page.split("\n## 15.")[0]!;
  for (const { name } of DeviceService.methods) expect(text).toContain(name);
  for (const name of [
    "HeldVerdict",
    "CompletionVerdict",
    "RejectReason",
    "DrainReason",
    "HeldAttemptState",
  ]) {
    const values = usedEnums(messages).find((each) => each.name === name)!.values;
    for (const value of values.slice(1)) expect(text).toContain(`\`${value.name}\``);
  }
});

test("the bytes on the page are the message beside them", () => {
  const [, hex, json] = /```hex\n(.*?)```\n\n```json\n(.*?)```/s.exec(page)!;
  const bytes = Buffer.from(hex!.replace(/\s/g, ""), "hex");
  expect(bytes[0]).toBe(0);
  expect(bytes.readUInt32BE(1)).toBe(bytes.length - 5);
  const message = fromBinary(ConnectRequestSchema, bytes.subarray(5));
  const shown = fromJson(ConnectRequestSchema, JSON.parse(json!));
  expect(toJson(ConnectRequestSchema, message)).toEqual(toJson(ConnectRequestSchema, shown));
});

test("the times that the page asks of a device are those of our own", () => {
  expect(defaultTiming).toMatchObject({
    ...{ dialDeadlineMs: 10_000, welcomeDeadlineMs: 10_000, drainLingerMs: 2_000, refusalsMax: 3 },
    ...{ backoffBaseMs: 500, backoffCapMs: 30_000, backoffResetMs: 10_000 },
    ...{ ackDeadlineMs: 15_000, ackDeadlineCapMs: 120_000, unaryAfterMs: 60_000 },
  });
  for (const stated of [
    "0.5 s to 30 s, full jitter; reset after 10 s held",
    "again after 15 s, doubling to 2 min",
  ]) {
    expect(page).toContain(stated);
  }
});

test("the page names every case of the conformance check, with its promise", () => {
  const section = page.split("\n## 15.")[1]!.split("\n## 16.")[0]!;
  const rows = section.split("\n").filter((line) => /^\| `[a-z-]+` \|/.test(line));
  expect(rows).toEqual(cases.map(({ name, promise }) => `| \`${name}\` | ${promise} |`));
});

test("sections that other pages and examples name are there", () => {
  const sections = [...page.matchAll(/^## (\d+)\. /gm)].map(([, number]) => Number(number));
  expect(sections).toEqual(sections.map((_, index) => index + 1));
  for (const file of ["examples/python/daemon.py", "examples/go/main.go"]) {
    for (const [, number] of readFileSync(join(root, file), "utf8").matchAll(/§(\d+)/g)) {
      expect(sections).toContain(Number(number));
    }
  }
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
});
