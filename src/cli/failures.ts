import { Code, ConnectError } from "@connectrpc/connect";
import {
  ConfigError as DeviceConfigError,
  DeviceError,
  type DeviceErrorReason,
  proxyErrorOf,
} from "@pinion/client";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import { ConfigError } from "../config/config-error.ts";
import { codeOf, Refusal, type RefusalReason } from "../errors.ts";
import { type ExitCode, exitCodes, Failure } from "./exit-codes.ts";

export { type ExitCode, exitCodes, Failure };

export type Explained = { message: string; advice: string | undefined; exitCode: ExitCode };

const exitCodeOfCode: Record<Code, ExitCode> = {
  [Code.Canceled]: exitCodes.interrupted,
  [Code.Unknown]: exitCodes.failed,
  [Code.InvalidArgument]: exitCodes.usage,
  [Code.DeadlineExceeded]: exitCodes.unreachable,
  [Code.NotFound]: exitCodes.notFound,
  [Code.AlreadyExists]: exitCodes.conflict,
  [Code.PermissionDenied]: exitCodes.unauthenticated,
  [Code.ResourceExhausted]: exitCodes.failed,
  [Code.FailedPrecondition]: exitCodes.conflict,
  [Code.Aborted]: exitCodes.conflict,
  [Code.OutOfRange]: exitCodes.usage,
  [Code.Unimplemented]: exitCodes.failed,
  [Code.Internal]: exitCodes.failed,
  [Code.Unavailable]: exitCodes.unreachable,
  [Code.DataLoss]: exitCodes.failed,
  [Code.Unauthenticated]: exitCodes.unauthenticated,
};

const exitCodeOfReason: Record<RefusalReason, ExitCode> = {
  invalid_argument: exitCodes.usage,
  not_found: exitCodes.notFound,
  already_exists: exitCodes.conflict,
  failed_precondition: exitCodes.conflict,
  permission_denied: exitCodes.unauthenticated,
  unauthenticated: exitCodes.unauthenticated,
  aborted: exitCodes.conflict,
  resource_exhausted: exitCodes.failed,
  deadline_exceeded: exitCodes.unreachable,
  unavailable: exitCodes.unreachable,
};

const exitCodeOfDeviceError: Record<DeviceErrorReason, ExitCode> = {
  unauthenticated: exitCodes.unauthenticated,
  revoked: exitCodes.unauthenticated,
  incompatible: exitCodes.conflict,
  locked: exitCodes.conflict,
  unusable: exitCodes.usage,
};

/** Errors of the operating system for an unreachable server. */
const connectionErrors = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "ECONNRESET",
]);

/** The operating system's code of an error or of its causes, for example "ECONNREFUSED". */
export function systemCode(error: unknown): string | undefined {
  // Chains of causes are short; the bound protects against a cycle.
  for (let depth = 0, at: unknown = error; depth < 8 && at instanceof Error; depth += 1, at = at.cause) {
    const code = codeOf(at);
    if (code !== undefined) return code;
    if (at instanceof AggregateError && at.errors.length > 0) return systemCode(at.errors[0]);
  }
  return undefined;
}

/** Message, advice and exit code for any error. `url`: the called server, if any. */
export function explain(error: unknown, url: string | undefined): Explained {
  if (error instanceof Failure) return error;
  const proxy = proxyErrorOf(error);
  // A ProxyError without a wrapper means a wrong setting; as a cause, it holds the proxy's answer.
  if (proxy) {
    const exitCode = error === proxy ? exitCodes.usage : exitCodes.unreachable;
    return { message: proxy.message, advice: proxy.advice, exitCode };
  }
  if (error instanceof ConnectError) return explainAnswer(error, url);
  if (error instanceof Refusal) {
    return { message: error.message, advice: undefined, exitCode: exitCodeOfReason[error.reason] };
  }
  if (error instanceof DeviceError) {
    return { message: error.message, advice: undefined, exitCode: exitCodeOfDeviceError[error.reason] };
  }
  if (error instanceof ConfigError || error instanceof DeviceConfigError) {
    return { message: error.message, advice: undefined, exitCode: exitCodes.usage };
  }
  const ofFile = explainFileError(error);
  if (ofFile !== undefined) return ofFile;
  if (error instanceof Error) {
    return { message: error.message || error.name, advice: debugAdvice, exitCode: exitCodes.failed };
  }
  return { message: String(error), advice: undefined, exitCode: exitCodes.failed };
}

/** Errors of the operating system about a path, which is at fault or has to be mended. */
const fileErrors: Record<string, { problem: string; exitCode: ExitCode } | undefined> = {
  EISDIR: { problem: "is a directory, and a file is needed", exitCode: exitCodes.usage },
  ENOTDIR: { problem: "cannot be reached: a part of the path is no directory", exitCode: exitCodes.usage },
  EEXIST: { problem: "is there already, as something else", exitCode: exitCodes.usage },
  ENOENT: { problem: "is not there", exitCode: exitCodes.usage },
  ENAMETOOLONG: { problem: "is too long for a path", exitCode: exitCodes.usage },
  ELOOP: { problem: "leads in a circle of links", exitCode: exitCodes.usage },
  EACCES: { problem: "may not be used by this user", exitCode: exitCodes.failed },
  EPERM: { problem: "may not be used by this user", exitCode: exitCodes.failed },
  EROFS: { problem: "is on a file system that takes no writes", exitCode: exitCodes.failed },
  ENOSPC: { problem: "cannot be written: no space is left there", exitCode: exitCodes.failed },
  EDQUOT: { problem: "cannot be written: this user's quota is used up", exitCode: exitCodes.failed },
  EIO: { problem: "cannot be used: its disk answers with an error", exitCode: exitCodes.failed },
};

function explainFileError(error: unknown): Explained | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  // The error of a read has no path.
  if (path === undefined && code === "EISDIR") {
    return {
      message: "a file is needed, and one of the named paths is a directory",
      advice: debugAdvice,
      exitCode: exitCodes.usage,
    };
  }
  const known = path === undefined || syscall === "spawn" ? undefined : fileErrors[code ?? ""];
  if (known === undefined) return undefined;
  const advice = `name another path, or mend this one (${code} of ${syscall})`;
  return { message: `${path} ${known.problem}`, advice, exitCode: known.exitCode };
}

const debugAdvice = "PINION_DEBUG=1 shows where this comes from";

function explainAnswer(error: ConnectError, url: string | undefined): Explained {
  const exitCode = exitCodeOfCode[error.code];
  const at = url ?? "the server";
  if (error.code === Code.Unavailable && connectionErrors.has(systemCode(error) ?? "")) {
    return {
      message: `no Pinion at ${at}`,
      advice: "start one with `pinion up`, or say where it is with --url or PINION_URL",
      exitCode,
    };
  }
  if (error.code === Code.Unauthenticated) {
    return {
      message: `${at} refuses the token: ${error.rawMessage}`,
      advice:
        "give one with --token or PINION_TOKEN, or in ~/.config/pinion/token; `pinion up` and `pinion serve` keep theirs in <data>/token (--data)",
      exitCode,
    };
  }
  if (error.code === Code.PermissionDenied) {
    return {
      message: `this token may not do that: ${error.rawMessage}`,
      advice: "`pinion tokens create --scope …` with a stronger token makes one that may",
      exitCode,
    };
  }
  if (error.code === Code.Unimplemented) {
    return {
      message: `${at} answers, but does not know this call`,
      advice: "is it a Pinion, and as new as this command? `pinion doctor` looks",
      exitCode,
    };
  }
  const violations = error
    .findDetails(BadRequestSchema)
    .flatMap((detail) => detail.fieldViolations)
    .filter((violation) => !error.rawMessage.includes(violation.description))
    .map((violation) => `\n  ${violation.field}: ${violation.description}`);
  return { message: error.rawMessage + violations.join(""), advice: adviceFor(error), exitCode };
}

/**
 * Advice from the server's message alone: the list of existing objects, or the command for changing
 * an existing object.
 */
function adviceFor(error: ConnectError): string | undefined {
  if (error.code === Code.NotFound) {
    const kind = /^there is no (watcher|agent|device|run|platform|token) /.exec(error.rawMessage)?.[1];
    return kind && `\`pinion ${kind}s list\` shows what there is`;
  }
  if (error.code === Code.AlreadyExists) {
    const slug = /^a watcher with the slug "([^"]+)" exists/.exec(error.rawMessage)?.[1];
    return slug && `\`pinion watchers update ${slug}\` changes it; or choose another slug`;
  }
  return undefined;
}

/** A message that every answer of the server has. Throws a Failure for an answer without it. */
export function told<Message>(message: Message | undefined, name: string): Message {
  if (message !== undefined) return message;
  throw new Failure(exitCodes.failed, `the server's answer has no ${name}`);
}
