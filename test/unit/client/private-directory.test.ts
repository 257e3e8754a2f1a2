/** Directories for tokens and results: no other user may write there. */
import { chmodSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { directoryProblem } from "../../../clients/ts/src/index.ts";
import { ensurePrivateDirectory } from "../../../clients/ts/src/private-directory.ts";

const root = mkdtempSync(join(tmpdir(), "pinion-private-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const isRoot = process.geteuid?.() === 0;
/** A user of no process here. */
const stranger = 60_123;

test("of all permission bits, exactly a write bit of the group or of all users is refused, with the command", async () => {
  const path = join(root, "bits");
  mkdirSync(path);
  const bits = fc.integer({ min: 0o700, max: 0o7777 }).map((mode) => mode | 0o700);
  await fc.assert(
    fc.asyncProperty(bits, async (mode) => {
      chmodSync(path, mode);
      const problem = directoryProblem(path);
      expect(problem !== undefined).toBe((mode & 0o022) !== 0);
      if (problem === undefined) return ensurePrivateDirectory(path);
      expect(problem.advice).toContain(`chmod 700 '${path}'`);
      await expect(ensurePrivateDirectory(path)).rejects.toThrow(problem.advice);
    }),
    { numRuns: 300, examples: [[0o777], [0o770], [0o720], [0o775], [0o1777], [0o2770], [0o755], [0o700]] },
  );
});

test("a link is judged by its directory, and a file is no directory", async () => {
  const [open, link, file] = ["open", "link", "file"].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  mkdirSync(open);
  symlinkSync(open, link);
  await ensurePrivateDirectory(link);
  chmodSync(open, 0o770);
  await expect(ensurePrivateDirectory(link)).rejects.toThrow(`chmod 700 '${link}'`);
  writeFileSync(file, "");
  await expect(ensurePrivateDirectory(file)).rejects.toThrow("is no directory");
});

test.runIf(isRoot)("a directory or a link of another user is refused, with what to do", async () => {
  const [theirs, link] = [join(root, "theirs"), join(root, "their-link")];
  mkdirSync(theirs, { mode: 0o700 });
  symlinkSync(root, link);
  lchownSync(theirs, stranger, stranger);
  lchownSync(link, stranger, stranger);
  await expect(ensurePrivateDirectory(theirs)).rejects.toThrow(/another user \(uid 60123\).*chown/);
  await expect(ensurePrivateDirectory(link)).rejects.toThrow(/symbolic link of another user.*rm /);
});
