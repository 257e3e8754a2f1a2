import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Files that commands write into the directory in which a newcomer types them. */
const ofCommands = ["pinion.toml", ".pinion", "schema.json", "fleet.token"];

test("a checkout holds no file that a command of the documentation writes", () => {
  const kept = execFileSync("git", ["ls-files", "--", ...ofCommands], { cwd: root, encoding: "utf8" });
  expect(kept).toBe("");
});
