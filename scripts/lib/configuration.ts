import { join } from "node:path";
import { z } from "zod";
import { commandSettings } from "../../src/cli/command-settings.ts";
import { serverSettings } from "../../src/config.ts";
import { root } from "./proto.ts";

export const configurationFile = join(root, "docs/configuration.md");

type Property = {
  description?: string;
  type?: string;
  format?: string;
  enum?: string[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  minLength?: number;
};

/** docs/configuration.md, from the schemas that check the variables. */
export function configurationPage(): string {
  return `${[
    "<!-- Made from src/config/ and src/cli/command-settings.ts by `npm run generate`; change it there. -->",
    "# Configuration",
    "",
    "Every setting is an environment variable; an empty variable counts as not set. A server with wrong settings names",
    "all of them and ends with exit code 2. `pinion doctor --server` checks the settings without starting a server.",
    "Secrets belong into the environment of the service (an `EnvironmentFile`, a Secret of Kubernetes), not onto a",
    "command line.",
    "",
    "## The server",
    "",
    "For `pinion serve`, and for the server of `pinion up`.",
    "",
    ...settingsTable(serverSettings),
    "",
    "Besides: `PINION_SECRET_<NAME>` is what `secret://NAME` stands for in the configuration of a platform, for the orgs of",
    "`PINION_REFERENCE_ORGS` ([security.md](security.md#secrets)). The keys of model providers (`ANTHROPIC_API_KEY`,",
    "`OPENAI_API_KEY`, `GEMINI_API_KEY`, …) only tell which providers are installed; their values are not read. The exporter",
    "of traces reads OpenTelemetry's own `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and its like.",
    "",
    "## The daemon and the other commands",
    "",
    ...settingsTable(commandSettings),
    "",
    "`pinion device run` also takes `PINION_LOG_LEVEL`, `PINION_LOG_FORMAT`, `PINION_OTLP_ENDPOINT` and `PINION_TRACE_RATIO`",
    "as above. What a device may execute stands in its `device.toml`: [device.example.toml](../device.example.toml).",
  ].join("\n")}\n`;
}

/**
 * Returns a row for each variable. Throws for a variable without a description, or with a unit in
 * its name and not in its row.
 */
export function settingsTable(settings: z.ZodObject): string[] {
  const schema = z.toJSONSchema(settings, { io: "output" }) as { properties: Record<string, Property> };
  const rows = Object.entries(schema.properties).map(([name, property]) => {
    if (!property.description)
      throw new Error(`${name} has no description: say what it means with describe()`);
    const { meaning, unit } = splitUnit(property.description);
    if (/_(MS|BYTES|DAYS)(_|$)/.test(name) && unit === "") {
      throw new Error(`${name} tells no unit: end its description with one, for example "(milliseconds)"`);
    }
    const fallback = (property.default ?? "") === "" ? "–" : `\`${property.default}\``;
    return [`\`${name}\``, meaning, fallback, unit || "–", allowed(property)];
  });
  return [
    ["variable", "meaning", "default", "unit", "allowed"],
    ["---", "---", "---", "---", "---"],
    ...rows,
  ].map((cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`);
}

/** "How often devices beat (milliseconds)" */
function splitUnit(description: string): { meaning: string; unit: string } {
  const match = /^(.*\S) \((milliseconds|bytes|days|seconds)\)$/s.exec(description);
  return match ? { meaning: match[1]!, unit: match[2]! } : { meaning: description, unit: "" };
}

function allowed(property: Property): string {
  if (property.enum) return property.enum.map((word) => `\`${word}\``).join(", ");
  if (property.type === "integer" || property.type === "number") {
    return `${property.minimum ?? "…"} – ${property.maximum ?? "…"}`;
  }
  if (property.format === "uri") return "a URL";
  if (property.minLength !== undefined && property.minLength > 1) return `≥ ${property.minLength} characters`;
  return "a text";
}
