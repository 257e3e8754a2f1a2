/**
 * The files of the web page. A bundle replaces the module by their bytes (scripts/lib/bundle.ts).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";

/** The files' bytes by path; the path begins with a slash. */
export function pageFiles(): ReadonlyMap<string, Buffer> {
  const directory = join(import.meta.dirname, "page");
  const files = readdirSync(directory, { recursive: true, withFileTypes: true });
  return new Map(
    files
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const file = join(entry.parentPath, entry.name);
        return [`/${relative(directory, file).replaceAll("\\", "/")}`, readFileSync(file)];
      }),
  );
}
