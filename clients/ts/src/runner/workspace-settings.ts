import { z } from "zod";

/** A named folder or repository for runs. */
export interface WorkspaceConfig {
  name: string;
  /** Absolute; undefined for `empty`. */
  path: string | undefined;
  mode: "shared" | "worktree" | "copy" | "empty";
  /** For `shared`: runs may work in the folder at the same time. */
  isParallel: boolean;
  /** Maximum age of kept folders of runs, in ms. */
  keepMs: number;
  /** Maximum size of all kept folders, in bytes; the oldest are removed first. */
  keepBytes: number;
}

/** Default bounds of a workspace's kept folders. */
export const KEEP_MS = 7 * 24 * 3_600_000;
export const KEEP_BYTES = 2 * 1024 * 1024 * 1024;

export const WORKSPACE_NAME = /^[a-z0-9][a-z0-9._-]*$/;

/** `duration` and `size` are the configuration's parsers. */
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
