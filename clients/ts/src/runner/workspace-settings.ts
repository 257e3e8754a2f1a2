import { z } from "zod";

/** A folder or repository that runs may work in, by name. */
export interface WorkspaceConfig {
  name: string;
  /** Absolute; undefined for `empty`. */
  path: string | undefined;
  mode: "shared" | "worktree" | "copy" | "empty";
  /** Of `shared`: runs may work in it at once. */
  isParallel: boolean;
  /** How long what a run left behind is kept, in ms. */
  keepMs: number;
  /** How much of it in all, in bytes; the oldest goes first. */
  keepBytes: number;
}

/** What a workspace keeps unless it says otherwise. */
export const KEEP_MS = 7 * 24 * 3_600_000;
export const KEEP_BYTES = 2 * 1024 * 1024 * 1024;

export const WORKSPACE_NAME = /^[a-z0-9][a-z0-9._-]*$/;

/** `duration` and `size` are the configuration's own. */
export function workspaceSchema(quantities: { duration: z.ZodType<number>; size: z.ZodType<number> }) {
  return z
    .strictObject({
      path: z.string().min(1).optional(),
      mode: z.enum(["shared", "worktree", "copy", "empty"]).default("shared"),
      parallel: z.boolean().default(false),
      keep: quantities.duration.optional(),
      keep_size: quantities.size.optional(),
    })
    .superRefine(({ path, mode, parallel }, context) => {
      const issue = (key: string, message: string) =>
        context.addIssue({ code: "custom", path: [key], message });
      if (path === undefined && mode !== "empty") issue("path", `is missing; mode "${mode}" needs one`);
      if (path !== undefined && mode === "empty") issue("path", 'means nothing for mode "empty"');
      if (parallel && mode !== "shared")
        issue("parallel", `means nothing for mode "${mode}": each run has its own`);
    });
}
