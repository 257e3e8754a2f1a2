import { fieldsOfHook, type HookFields, hookDefaults, hookPaths } from "../fields/hook-fields.ts";
import type { DesiredHook } from "../file/desired.ts";
import type { OrgState } from "../state.ts";
import { change, isSame } from "./plan-fields.ts";
import { hiddenText } from "./shown.ts";
import type { FieldChange, HookStep, Verdict } from "./steps.ts";

/** Key of a hook's verdict; distinct from platform ids, the keys of platforms. */
export const hookVerdict = (slug: string) => `hook ${slug}`;

const names: readonly (keyof HookFields)[] = [
  "watcher",
  "kind",
  "filter",
  "mapping",
  "rate_per_minute",
  "disabled",
];

/**
 * The step of a hook. Only the server can compare the secret: its dry run says whether it differs.
 */
export function hookStep(
  wanted: DesiredHook,
  state: OrgState,
  verdicts: ReadonlyMap<string, Verdict>,
  templates: ReadonlyMap<string, string>,
): HookStep {
  const current = state.hooks.get(wanted.slug);
  const before = current && fieldsOfHook(current);
  const changed = names.filter((name) => !isSame(before?.[name], wanted.fields[name]));
  const defaults: Partial<HookFields> = hookDefaults;
  const fields: FieldChange[] = changed
    .filter((name) => before || !isSame(wanted.fields[name], defaults[name]))
    .map((field) => change(field, before?.[field], wanted.fields[field], [...wanted.path, field], templates));
  const isSecretNew = current !== undefined && verdicts.get(hookVerdict(wanted.slug))?.outcome === "updated";
  if (isSecretNew) fields.push({ field: "secret", before: hiddenText, after: hiddenText });
  return {
    ...{ kind: "hook", id: wanted.slug, agent: "", wanted, willRestart: false, fields },
    action: !current ? "create" : fields.length > 0 ? "update" : "noop",
    changed: changed.filter((name) => name in hookPaths) as HookStep["changed"],
    isSecretNew,
    note:
      current || wanted.secret !== undefined
        ? ""
        : `the server makes its secret; \`pinion hooks rotate ${wanted.slug}\` shows a new one`,
    version: current?.version ?? 0,
  };
}
