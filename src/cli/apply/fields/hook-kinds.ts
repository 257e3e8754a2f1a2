import { HookKind } from "#gen/pinion/v1/hook_pb.js";

/** The kinds in the file's words: "github", "secret-url". */
export const hookKinds = Object.values(HookKind).flatMap((value) =>
  typeof value === "number" && value !== HookKind.UNSPECIFIED ? [kindWord(value)] : [],
);

export function kindWord(kind: HookKind): string {
  return (HookKind[kind] ?? "").toLowerCase().replaceAll("_", "-");
}

export function kindOf(word: string): HookKind {
  return HookKind[word.toUpperCase().replaceAll("-", "_") as keyof typeof HookKind];
}
