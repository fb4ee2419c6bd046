/** Checks of the contract suite, which belongs to no test runner. */
import { differsAt, notFilledAt } from './compare-bytes.ts';

/** What a driver did against its contract. */
export class ContractError extends Error {
  override readonly name = 'ContractError';
}

export function expectThat(condition: unknown, message: string): asserts condition {
  if (!condition) throw new ContractError(message);
}

export function expectBytes(found: Uint8Array, expected: Uint8Array, what: string): void {
  const at = differsAt(found, expected);
  if (at < 0) return;
  throw new ContractError(`${what}: byte ${at} of ${expected.length} is ${found[at]} instead of ${expected[at]}`);
}

export function expectFilled(found: Uint8Array, value: number, what: string): void {
  const at = notFilledAt(found, value);
  if (at >= 0) throw new ContractError(`${what}: byte ${at} of ${found.length} is ${found[at]} instead of ${value}`);
}

/** The code the promise fails with; undefined when it does not fail. Other errors than coded ones are thrown on. */
export async function codeOfFailure(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code === 'string') return code;
    throw error;
  }
}

export async function expectCode(promise: Promise<unknown>, codes: readonly string[], what: string): Promise<void> {
  const code = await codeOfFailure(promise);
  expectThat(code !== undefined, `${what} must fail with ${codes.join(' or ')}`);
  expectThat(codes.includes(code), `${what} fails with ${code} instead of ${codes.join(' or ')}`);
}

/** True when it was done, false when the driver has no such capability (ENOTSUP). */
export async function isSupported(promise: Promise<unknown>): Promise<boolean> {
  const code = await codeOfFailure(promise);
  expectThat(code === undefined || code === 'ENOTSUP', `fails with ${code}`);
  return code === undefined;
}
