import { create } from "@bufbuild/protobuf";
import { type Hook, HookKind, type HookSpec, HookSpecSchema } from "#gen/pinion/v1/hook_pb.js";
import type { HookTree } from "../file/shape.ts";
import { kindOf, kindWord } from "./hook-kinds.ts";

/** A hook in the file's terms, without its secret. */
export type HookFields = {
  watcher: string;
  kind: string;
  filter: string;
  mapping: string;
  rate_per_minute: number;
  disabled: boolean;
};

/** Values for keys missing in the file; defaults of the API. */
export const hookDefaults = {
  ...{ filter: "", mapping: "", rate_per_minute: 60, disabled: false },
} as const satisfies Partial<HookFields>;

/** Update-mask path of each field that can change. */
export const hookPaths: Record<Exclude<keyof HookFields, "kind">, string> = {
  watcher: "watcher_id",
  filter: "filter",
  mapping: "mapping",
  rate_per_minute: "rate_per_minute",
  disabled: "is_disabled",
};

export function fieldsOfHookTree(tree: HookTree): HookFields {
  return {
    ...{ watcher: tree.watcher, kind: tree.kind },
    filter: (tree.filter ?? hookDefaults.filter).trim(),
    mapping: (tree.mapping ?? hookDefaults.mapping).trim(),
    rate_per_minute: tree.rate_per_minute ?? hookDefaults.rate_per_minute,
    disabled: tree.disabled ?? hookDefaults.disabled,
  };
}

export function fieldsOfHook({ spec }: Hook): HookFields {
  return {
    watcher: spec?.watcherId ?? "",
    kind: kindWord(spec?.kind ?? HookKind.UNSPECIFIED),
    filter: (spec?.filter ?? "").trim(),
    mapping: (spec?.mapping ?? "").trim(),
    rate_per_minute: spec?.ratePerMinute ?? hookDefaults.rate_per_minute,
    disabled: spec?.isDisabled ?? hookDefaults.disabled,
  };
}

/** The spec message with the fields. */
export function specOfHook(fields: HookFields): HookSpec {
  return create(HookSpecSchema, {
    watcherId: fields.watcher,
    kind: kindOf(fields.kind),
    filter: fields.filter,
    mapping: fields.mapping,
    ratePerMinute: fields.rate_per_minute,
    isDisabled: fields.disabled,
  });
}
