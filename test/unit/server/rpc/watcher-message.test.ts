import { create, type JsonObject } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";
import { slugOf, watcherValues } from "../../../../src/server/rpc/messages/watcher-message.ts";

const spec = (init: object) => create(WatcherSpecSchema, { name: "n", prompt: "p", ...init });

test("a slug is made of the letters and digits of a name", () => {
  expect(slugOf("Daily check-in")).toBe("daily-check-in");
  expect(slugOf("  Überprüfe: das Büro! ")).toBe("uberprufe-das-buro");
  expect(slugOf("日報")).toBe("");
  expect(slugOf(`${"a".repeat(62)} bcd`)).toBe("a".repeat(62));
});

test("what is not set means the defaults that the .proto promises", () => {
  expect(watcherValues(spec({}))).toEqual({
    name: "n",
    prompt: "p",
    agentId: "",
    deviceId: null,
    agentKind: "",
    schedule: null,
    timeZone: "UTC",
    after: [],
    overlap: "skip",
    placement: null,
    catchup: "collapse",
    catchupWindowMs: 86_400_000,
    jitterMs: 0,
    minCooldownMs: 0,
    startDeadlineMs: null,
    timeoutMs: 3_600_000,
    maxAttempts: 1,
    notification: "none",
    extractionSchema: null,
    agentWork: {},
  });
});

test("a schedule, a zone and an extraction schema that cannot be are refused by their field", () => {
  const field = (init: object) => {
    try {
      watcherValues(spec(init));
      return undefined;
    } catch (error) {
      return (error as { field?: string }).field;
    }
  };
  expect(field({ schedule: "61 * * * *" })).toBe("spec.schedule");
  expect(field({ schedule: "0 0 31 2 *" })).toBe("spec.schedule");
  expect(field({ schedule: "0 9 * * *", timeZone: "Mars/Base" })).toBe("spec.time_zone");
  expect(field({ timeZone: "Mars/Base" })).toBe("spec.time_zone");
  const schema = (text: string): { extractionSchema: JsonObject } => ({
    extractionSchema: { description: text },
  });
  expect(field(schema("x".repeat(65_000)))).toBeUndefined();
  expect(field(schema("x".repeat(65_536)))).toBe("spec.extraction_schema");
  expect(field(schema("nul \u0000 inside"))).toBe("spec.extraction_schema");
  expect(field(schema("half \ud83d of a pair"))).toBe("spec.extraction_schema");
  expect(field(schema("the text \\u0000 spelled out, and 🚀"))).toBeUndefined();
});

test("a message that breaks a rule is named by the path in the .proto", () => {
  expect(checkMessage(WatcherSpecSchema, spec({ agentKind: "Not Allowed" }))?.field).toBe("agent_kind");
  expect(checkMessage(WatcherSpecSchema, spec({ deviceId: "x" }))).toMatchObject({
    field: "device_id",
    message: expect.stringMatching(/^device_id: /),
  });
  expect(checkMessage(WatcherSpecSchema, spec({}))).toBeUndefined();
});
