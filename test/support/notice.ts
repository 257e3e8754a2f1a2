/** Says once, where people see it, that tests are not run on this machine and what they would need. */
export function noticeSkipped(what: string, needs: string): string {
  const notice = `SKIPPED: ${what}: ${needs}`;
  process.stderr.write(`\n  ${notice}\n\n`);
  return notice;
}
