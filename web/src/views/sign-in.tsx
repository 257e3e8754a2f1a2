import { Code, ConnectError } from "@connectrpc/connect";
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { explainError, isUnreachable, orgOf, setToken, signInError } from "../data/api.ts";
import { Mark } from "../parts/mark.tsx";

/** Signs in by a token, which is tried before it is kept. */
export function SignIn() {
  const isTrying = useSignal(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Sign in · Pinion";
    input.current?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const candidate = input.current?.value.trim() ?? "";
    isTrying.value = true;
    signInError.value = "";
    signInError.value = await tryToken(candidate);
    isTrying.value = false;
    if (signInError.value === "") setToken(candidate);
    else input.current?.select();
  };

  const error = signInError.value;
  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>
          <Mark />
          pinion
        </h1>
        <label for="token">Token</label>
        <input
          id="token"
          ref={input}
          type="password"
          autocomplete="off"
          spellcheck={false}
          placeholder="pin_pat_…"
          aria-invalid={error !== ""}
          aria-describedby={error ? "sign-in-error" : "token-hint"}
        />
        {error && (
          <p id="sign-in-error" class="error" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="primary" disabled={isTrying.value}>
          {isTrying.value ? "Signing in…" : "Sign in"}
        </button>
        <p id="token-hint" class="hint">
          The first start wrote one to <code>.pinion/token</code>; <code>pinion tokens create</code> makes
          another. It is kept for this tab only.
        </p>
      </form>
    </main>
  );
}

/** Why the token is not good; "" if it is. */
async function tryToken(candidate: string): Promise<string> {
  if (candidate === "") return "Paste a token first.";
  if (!/^[\x21-\x7e]+$/.test(candidate))
    return "This is no token: a token is one word of letters, digits and “_”.";
  try {
    await orgOf(candidate);
    return "";
  } catch (error) {
    const { code } = ConnectError.from(error);
    if (code === Code.Unauthenticated) {
      return "This token is not known here, has expired or was revoked. `pinion tokens create` makes a new one.";
    }
    if (code === Code.PermissionDenied)
      return "This token may not read. The page needs one with the scope “read”.";
    if (isUnreachable(error)) return "The server does not answer. Try again in a moment.";
    return explainError(error);
  }
}
