import { z } from "zod";
import { ConfigError } from "./config/config-error.ts";
import { type DatabaseConfig, databaseConfig, databaseSettings, type NatsConfig } from "./config/database.ts";
import { type LimitsConfig, limitsConfig, limitsSettings } from "./config/limits.ts";
import {
  type ObservabilityConfig,
  observabilityConfig,
  observabilitySettings,
} from "./config/observability.ts";
import { type OutgoingConfig, outgoingConfig, outgoingSettings } from "./config/outgoing.ts";
import { type PortConfig, portConfig, portSettings } from "./config/port.ts";
import { type SchedulesConfig, schedulesConfig, schedulesSettings } from "./config/schedules.ts";
import { type SessionsConfig, sessionsConfig, sessionsSettings } from "./config/sessions.ts";
import { type SignInConfig, signInConfig, signInSettings } from "./config/sign-in.ts";

export { ConfigError } from "./config/config-error.ts";
export type { NatsConfig } from "./config/database.ts";
export { logFormat, tracingConfig } from "./config/observability.ts";
export { requireKeyring } from "./config/outgoing.ts";
export type { OidcConfig } from "./config/sign-in.ts";

/**
 * The configuration, read once from the environment; each file of config/ has the settings of one
 * area. No file of the server but environment.ts reads `process.env`. Every setting states its
 * meaning, default and unit in `describe`; docs/configuration.md is made from the settings.
 */
export const serverSettings = z.object({
  ...portSettings,
  ...signInSettings,
  ...databaseSettings,
  ...sessionsSettings,
  ...schedulesSettings,
  ...limitsSettings,
  ...outgoingSettings,
  ...observabilitySettings,
});

export type ServerSettings = z.infer<typeof serverSettings>;

/** The configuration of a replica. Times in milliseconds, sizes in bytes. */
export type ReplicaConfig = PortConfig &
  SignInConfig &
  DatabaseConfig &
  SessionsConfig &
  SchedulesConfig &
  LimitsConfig &
  OutgoingConfig &
  ObservabilityConfig & {
    /**
     * The providers whose keys are in the environment, by name and in alphabetical order; the keys
     * are not read.
     */
    installedProviders: string[];
  };

/** The replica's configuration. Throws a ConfigError that names each wrong variable. */
export function replicaConfig(env: Record<string, string | undefined>): ReplicaConfig {
  const given = Object.fromEntries(
    // Blank is not set: as a number it would be 0, which turns a limit off.
    Object.entries(env).filter(([, value]) => value !== undefined && value.trim() !== ""),
  );
  const settings = parse(given);
  return {
    ...portConfig(settings),
    ...signInConfig(settings),
    ...databaseConfig(settings),
    ...sessionsConfig(settings),
    ...schedulesConfig(settings),
    ...limitsConfig(settings),
    ...outgoingConfig(settings, given),
    ...observabilityConfig(settings, given),
    installedProviders: providersIn(given),
  };
}

function parse(given: Record<string, string | undefined>): ServerSettings {
  const parsed = serverSettings.safeParse(given);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((issue) => {
    const name = issue.path.join(".");
    const setting = serverSettings.shape[name as keyof ServerSettings];
    return `${name}: ${issue.message} — ${setting?.description ?? ""}`;
  });
  throw new ConfigError(`the configuration is not usable:\n  ${lines.join("\n  ")}`);
}

/**
 * The bus of this environment if the bus is NATS, whatever else is configured. Throws a
 * ConfigError.
 */
export function natsConfig(env: Record<string, string | undefined>): NatsConfig | undefined {
  if (env.PINION_BUS !== "nats") return undefined;
  return replicaConfig({ DATABASE_URL: "unused", ...env }).nats;
}

/** The variables with the keys of providers of models; a provider with a key is installed. */
const providerKeys: Record<string, readonly string[]> = {
  anthropic: ["ANTHROPIC_API_KEY"],
  google: ["GEMINI_API_KEY", "GOOGLE_API_KEY"],
  groq: ["GROQ_API_KEY"],
  mistral: ["MISTRAL_API_KEY"],
  openai: ["OPENAI_API_KEY"],
  openrouter: ["OPENROUTER_API_KEY"],
};

function providersIn(given: Record<string, string | undefined>): string[] {
  return Object.entries(providerKeys)
    .filter(([, names]) => names.some((name) => Object.hasOwn(given, name)))
    .map(([provider]) => provider);
}
