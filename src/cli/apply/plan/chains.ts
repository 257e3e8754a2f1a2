import type { WatcherStep } from "./steps.ts";

/**
 * Sorts watchers into waves: each watcher comes after all watchers of the plan named in its
 * `after`. Watchers in a cycle, or after a cycle, are in `circle` and in no wave.
 */
export function wavesOf(steps: readonly WatcherStep[]): { waves: WatcherStep[][]; circle: WatcherStep[] } {
  const waves: WatcherStep[][] = [];
  let left = [...steps];
  while (left.length > 0) {
    const slugs = new Set(left.map((step) => step.wanted?.slug));
    const wave = left.filter((step) => !step.wanted?.fields.after.some((slug) => slugs.has(slug)));
    if (wave.length === 0) break;
    waves.push(wave);
    left = left.filter((step) => !wave.includes(step));
  }
  return { waves, circle: left };
}
