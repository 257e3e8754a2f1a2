import { excerpt } from "../../values/excerpt.ts";
import { shown } from "../people/changes.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import { canonical } from "../pg/values/canonical.ts";
import { masked } from "./platform-secrets.ts";
import { named, type Platform, type PlatformValues } from "./platforms.ts";

/** Maximum characters of a config value in an event. */
const eventValueLengthMax = 200;

export function createdEvent(
  platform: Platform,
  one: { actor: string; values: PlatformValues },
  secrets: Record<string, string>,
) {
  return {
    kind: "platform.created",
    actor: one.actor,
    data: {
      ...named(platform),
      kind: one.values.kind,
      version: 1,
      config: shortened(one.values.config),
      secrets: masked(secrets),
    },
  };
}

export function updatedEvent(
  { before, after }: { before: Platform; after: Platform },
  changed: string[],
  actor: string,
  willRestart: boolean,
) {
  return {
    kind: "platform.updated",
    actor,
    data: {
      ...named(after),
      version: after.version,
      changed,
      changes: Object.fromEntries(
        changed.map((field) => [field, { from: shownOf(before, field), to: shownOf(after, field) }]),
      ),
      config: shortened(only(after.config, changed, "config.")),
      secrets: masked(only(after.secrets, changed, "secrets.")),
      will_restart: willRestart,
    },
  };
}

/** "config.a" or "secrets.b" of a platform for an event: of a secret only its existence. */
function shownOf(platform: Pick<Platform, "config" | "secrets">, field: string): unknown {
  const [, part, key = ""] = /^(config|secrets)\.(.*)$/s.exec(field) ?? [];
  const values = part === "config" ? platform.config : masked(platform.secrets);
  return shown(field, Object.hasOwn(values, key) ? values[key] : undefined);
}

export function changedKeys(before: Record<string, string>, after: Record<string, string>): string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((key) => canonical(before[key]) !== canonical(after[key]))
    .sort();
}

function only(values: Record<string, string>, changed: string[], prefix: string): Record<string, string> {
  return Object.fromEntries(Object.entries(values).filter(([key]) => changed.includes(prefix + key)));
}

function shortened(config: Record<string, string>): Json {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [key, excerpt(value, eventValueLengthMax)]),
  );
}
