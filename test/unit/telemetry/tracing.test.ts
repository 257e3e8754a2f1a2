/** The format of a trace context, and the runs that have a trace context. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { tracingConfig } from "../../../src/config.ts";
import {
  formatTraceparent,
  isWithinRatio,
  parseTraceparent,
  spanIdOf,
  traceIdOf,
} from "../../../src/telemetry/tracing.ts";
import { newId } from "../../../src/values/ids.ts";

test("a run's trace id is the run's id, and its root span is the same wherever it is asked for", () => {
  const runId = "01a1fb7a-7a97-7f82-b7cf-0f419acd25a2";
  expect(traceIdOf(runId)).toBe("01a1fb7a7a977f82b7cf0f419acd25a2");
  expect(traceIdOf(runId.toUpperCase())).toBe(traceIdOf(runId));
  expect(spanIdOf(traceIdOf(runId), "run")).toMatch(/^[0-9a-f]{16}$/);
  expect(spanIdOf(traceIdOf(runId), "run")).toBe(spanIdOf(traceIdOf(runId), "run"));
  expect(spanIdOf(traceIdOf(runId), "run")).not.toBe(spanIdOf(traceIdOf(runId), "execute 1"));
});

test("the share that is sampled is the share that was asked for, however close in time the runs are", () => {
  const traceIds = Array.from({ length: 10_000 }, () => traceIdOf(newId(1_700_000_000_000)));
  const kept = (ratio: number) => traceIds.filter((traceId) => isWithinRatio(traceId, ratio)).length;
  expect(kept(0)).toBe(0);
  expect(kept(1)).toBe(10_000);
  expect(kept(0.25)).toBeGreaterThan(2_200);
  expect(kept(0.25)).toBeLessThan(2_800);
});

test("a traceparent is read as the W3C wants it, and what breaks its rules is none", () => {
  const context = {
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
    isSampled: true,
  };
  expect(parseTraceparent(formatTraceparent(context))).toEqual(context);
  expect(parseTraceparent(`cc-${context.traceId}-${context.spanId}-03-more`)).toEqual(context);
  for (const bad of [
    ...["", null, undefined, "00", `00-${"0".repeat(32)}-${context.spanId}-01`],
    ...[`00-${context.traceId}-${"0".repeat(16)}-01`, `ff-${context.traceId}-${context.spanId}-01`],
    `00-${context.traceId.toUpperCase()}-${context.spanId}-01`,
  ]) {
    expect(parseTraceparent(bad)).toBeUndefined();
  }
});

test("OpenTelemetry's own variables count where ours say nothing", () => {
  expect(tracingConfig({})).toBeUndefined();
  expect(tracingConfig({ PINION_OTLP_ENDPOINT: "http://a:4318/", PINION_TRACE_RATIO: "0.5" })).toEqual({
    url: "http://a:4318/v1/traces",
    ratio: 0.5,
  });
  expect(tracingConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://b:4318" })?.url).toBe(
    "http://b:4318/v1/traces",
  );
  expect(tracingConfig({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://c/traces" })?.url).toBe(
    "http://c/traces",
  );
  const both = { PINION_OTLP_ENDPOINT: "http://a", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://c/traces" };
  expect(tracingConfig(both)?.url).toBe("http://a/v1/traces");
  expect(() => tracingConfig({ PINION_OTLP_ENDPOINT: "collector" })).toThrow("PINION_OTLP_ENDPOINT");
  expect(() => tracingConfig({ PINION_TRACE_RATIO: "2" })).toThrow("PINION_TRACE_RATIO");
});

test("nothing loads OpenTelemetry but a tracer that is opened", () => {
  const root = fileURLToPath(new URL("../../../", import.meta.url));
  const loading = ["src", "clients/ts/src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .filter((path) =>
        /^import (?!type)[^;]*from "@opentelemetry/m.test(readFileSync(join(root, folder, path), "utf8")),
      ),
  );
  expect(loading).toEqual([]);
});
