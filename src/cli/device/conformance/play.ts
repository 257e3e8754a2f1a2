import type { ConformanceCase } from "./case.ts";
import { Stage, type StageOptions } from "./stage.ts";
import { type CaseResult, Skipped, Wrong } from "./verdict.ts";

/** Plays a case on a stage of its own. Rejects only for errors of the machine. */
export async function play(scene: ConformanceCase, options: StageOptions): Promise<CaseResult> {
  const startedAt = performance.now();
  const stage = await Stage.set(options);
  const interrupted = Promise.withResolvers<never>();
  const interrupt = () => interrupted.reject(new Skipped("interrupted"));
  options.signal.addEventListener("abort", interrupt, { once: true });
  const result = (outcome: CaseResult["outcome"], expected = "", seen = ""): CaseResult => ({
    ...{ name: scene.name, promise: scene.promise, outcome, expected, seen },
    durationMs: Math.round(performance.now() - startedAt),
    daemon: outcome === "fail" ? [...(stage.daemon?.lines ?? [])] : [],
  });
  try {
    await Promise.race([scene.play(stage), interrupted.promise]);
    const [broken] = stage.server.broken;
    if (broken !== undefined) return result("fail", "messages that keep the rules of the protocol", broken);
    return result("pass");
  } catch (error) {
    if (options.signal.aborted) return result("skip", "", "interrupted");
    if (error instanceof Skipped) return result("skip", "", error.message);
    if (error instanceof Wrong) return result("fail", error.expected, error.seen);
    throw error;
  } finally {
    options.signal.removeEventListener("abort", interrupt);
    await stage.clear();
  }
}

/** Plays cases, `jobs` at once; reports each at its end. */
export async function playAll(
  scenes: readonly ConformanceCase[],
  options: StageOptions & { jobs: number; onResult: (result: CaseResult) => void },
): Promise<CaseResult[]> {
  const results = new Map<string, CaseResult>();
  const waiting = [...scenes];
  const worker = async () => {
    for (let scene = waiting.shift(); scene && !options.signal.aborted; scene = waiting.shift()) {
      const result = await play(scene, options);
      results.set(scene.name, result);
      options.onResult(result);
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, worker));
  return scenes.flatMap(({ name }) => results.get(name) ?? []);
}
