/**
 * Says of a vitest report (JSON) how long each file took, and on its last line how many tests
 * passed.
 */
import { readFileSync } from "node:fs";
import { relative } from "node:path";

/** Shorter files are counted together. */
const shownMs = 2_000;

const report = JSON.parse(readFileSync(process.argv[2], "utf8"));
const files = report.testResults
  .map((file) => ({
    name: relative(process.cwd(), file.name),
    ms: file.endTime - file.startTime,
    tests: file.assertionResults.length,
  }))
  .sort((a, b) => b.ms - a.ms);
const seconds = (ms) => `${(ms / 1000).toFixed(1).padStart(7)} s`;
const sum = (some) => some.reduce((total, { ms }) => total + ms, 0);
const short = files.filter(({ ms }) => ms < shownMs);
console.log(`How long each of ${files.length} files took, and its tests:`);
for (const { name, ms, tests } of files) {
  if (ms >= shownMs) console.log(`${seconds(ms)} ${String(tests).padStart(4)}  ${name}`);
}
console.log(`${seconds(sum(short))}       ${short.length} shorter files together`);
console.log(`${seconds(sum(files))}       in all, by several workers at once`);
const { numPassedTests, numFailedTests, numPendingTests } = report;
console.log(`${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`);
