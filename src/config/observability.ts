import { z } from "zod";
import type { LogFormat } from "../telemetry/log.ts";
import type { TracingConfig } from "../telemetry/tracing.ts";
import { ConfigError } from "./config-error.ts";
import type { SettingsOf } from "./fields.ts";

/** Logs and traces. */
export const observabilitySettings = {
  PINION_LOG_LEVEL: z
    .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
    .default("info")
    .describe("Least severe level that is logged"),
  PINION_LOG_FORMAT: z
    .enum(["auto", "json", "pretty"])
    .default("auto")
    .describe("Lines of JSON, or lines for people; auto: for people on a terminal"),
  PINION_OTLP_ENDPOINT: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      "Base URL of an OpenTelemetry collector that takes OTLP over HTTP, for example http://localhost:4318; default: OTEL_EXPORTER_OTLP_ENDPOINT, and without it no traces",
    ),
  PINION_TRACE_RATIO: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("The share of runs and calls that are traced, 0 to 1"),
};

export type ObservabilityConfig = {
  logLevel: Settings["PINION_LOG_LEVEL"];
  tracing: TracingConfig | undefined;
};

type Settings = SettingsOf<typeof observabilitySettings>;

export function observabilityConfig(
  s: Settings,
  given: Readonly<Record<string, string | undefined>>,
): ObservabilityConfig {
  return {
    logLevel: s.PINION_LOG_LEVEL,
    tracing: tracingOf(s, given),
  };
}

const formatSetting = z.object(observabilitySettings).pick({ PINION_LOG_FORMAT: true });

/**
 * How log lines are to look, for loggers that are made before the rest is read; a wrong word is as
 * good as none.
 */
export function logFormat(env: Record<string, string | undefined>): LogFormat {
  const parsed = formatSetting.safeParse({ PINION_LOG_FORMAT: env.PINION_LOG_FORMAT || undefined });
  return parsed.data?.PINION_LOG_FORMAT ?? "auto";
}

const tracingSettings = z
  .object(observabilitySettings)
  .pick({ PINION_OTLP_ENDPOINT: true, PINION_TRACE_RATIO: true });

/** Where a daemon sends its traces: the same variables as the server's. Throws a ConfigError. */
export function tracingConfig(env: Record<string, string | undefined>): TracingConfig | undefined {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value));
  const parsed = tracingSettings.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new ConfigError(`the configuration of traces is not usable:\n  ${lines.join("\n  ")}`);
  }
  return tracingOf(parsed.data, given);
}

/**
 * OpenTelemetry's own variables count where ours say nothing; the one for traces alone is a whole
 * URL.
 */
function tracingOf(
  settings: z.infer<typeof tracingSettings>,
  env: Record<string, string | undefined>,
): TracingConfig | undefined {
  const ratio = settings.PINION_TRACE_RATIO;
  const base = settings.PINION_OTLP_ENDPOINT ?? env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!settings.PINION_OTLP_ENDPOINT && env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) {
    return { url: env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, ratio };
  }
  return base ? { url: `${base.replace(/\/+$/, "")}/v1/traces`, ratio } : undefined;
}
