/**
 * Prints once, visible to people, that tests are skipped on this machine, and their requirements.
 */
export function noticeSkipped(what: string, needs: string): string {
  const notice = `SKIPPED: ${what}: ${needs}`;
  process.stderr.write(`\n  ${notice}\n\n`);
  return notice;
}
