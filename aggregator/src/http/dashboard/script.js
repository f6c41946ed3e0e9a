// The dashboard: reads the REST API, writes text, and closes breakers. Two views by URL hash: the overview (#/) and the story of one
// event (#/events/<id>). Every view says in words when it loads, is empty or cannot be shown.
'use strict';

const REFRESH_MS = 5000;
const EVENTS_SHOWN = 50;
const SILENT_MS = 150000; // two and a half status reports at the default of one a minute
const FAILED = ['rolling_back', 'rollback_stuck', 'failed'];
const CHOICES = {
  failed: ['that failed', FAILED],
  all: ['of all states', ['']],
  running: ['still running', ['running']],
  succeeded: ['that succeeded', ['succeeded']],
  abandoned: ['that were abandoned', ['abandoned']],
  rolled_back: ['that were rolled back', ['rolled_back']],
};
const COLOURS = {
  succeeded: 'good', rolled_back: 'good', yes: 'warn', maybe: 'warn', no: 'quiet', running: 'busy',
  rolling_back: 'bad', rollback_stuck: 'bad', failed: 'bad', unknown: 'warn', rejected: 'warn', refused: 'warn',
  abandoned: 'quiet', contested: 'warn', live: 'bad', withdrawn: 'quiet',
};
const main = document.getElementById('main');
const freshness = document.getElementById('freshness');
let choice = 'failed';
let drawn = 0; // a slower answer of an earlier view must not replace a newer one

// An element with attributes and children; every text goes in as text.
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}
const words = (text) => text.replaceAll('_', ' ');
const mark = (word, colour) => h('span', { class: `mark ${colour || COLOURS[word] || 'quiet'}` }, words(word));
const id = (text) => h('span', { class: 'id' }, text);
const eventLink = (event) => h('a', { class: 'id', href: `#/events/${encodeURIComponent(event)}` }, event);
// Words of the API, in which names stand in backquotes.
const prose = (text) => text.split('`').map((part, index) => (index % 2 ? h('code', {}, part) : part));
const count = (number, one, many) => `${number} ${number === 1 ? one : many || `${one}s`}`;
const clock = (time) => h('time', { datetime: time, title: time }, new Date(time).toLocaleTimeString());
const moment = (time) => h('time', { datetime: time, title: time }, new Date(time).toLocaleString());
const card = (...children) => h('div', { class: 'card' }, ...children);
const says = (text) => card(h('p', { class: 'quiet' }, text));
const section = (title, ...children) => [h('h2', {}, title), ...children];

async function ask(path, order) {
  const headers = { accept: 'application/json', ...(order && { 'content-type': 'application/json' }) };
  let answer;
  try {
    answer = await fetch(path, order ? { method: 'POST', headers, body: JSON.stringify(order) } : { headers });
  } catch {
    throw new Error('Kaeru does not answer. It may be starting or stopped; this page asks again by itself.');
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body && body.title ? `${body.title}: ${body.detail}` : `Kaeru answered ${answer.status}.`);
  return body;
}

async function readEvents() {
  const states = CHOICES[choice][1];
  const pages = await Promise.all(states.map((state) => ask(`/v1/events?limit=${EVENTS_SHOWN}${state && `&state=${state}`}`)));
  const events = pages.flatMap((page) => page.events);
  events.sort((a, b) => b.first_at.localeCompare(a.first_at));
  return { events: events.slice(0, EVENTS_SHOWN), more: events.length > EVENTS_SHOWN || pages.some((page) => page.next) };
}

function servicesTable(services, events, now) {
  if (!services.length && !events.length) {
    return says('No service was heard of yet. Once the filter runs in a proxy, its service stands here within a minute.');
  }
  const failures = new Map();
  for (const event of events) if (event.failed) failures.set(event.failed, (failures.get(event.failed) || 0) + 1);
  const rows = services.map((service) => {
    const silent = now - Date.parse(service.last_heard) > SILENT_MS;
    const failed = failures.get(service.service) || 0;
    const lost = Math.max(service.dropped, service.lost);
    return { ...service, silent, failed, lost, badness: [failed, Number(silent), lost, service.possible_splits, service.in_flight] };
  });
  // What failed and has no proxy is a host outside the mesh.
  for (const [peer, failed] of failures) {
    if (!services.some((service) => service.service === peer)) rows.push({ service: peer, outside: true, failed, badness: [failed, 0, 0, 0, 0] });
  }
  rows.sort((a, b) => {
    const at = a.badness.findIndex((value, index) => value !== b.badness[index]);
    return at < 0 ? a.service.localeCompare(b.service) : b.badness[at] - a.badness[at];
  });
  const cell = (number, colour) => h('td', { class: `number ${number ? colour : 'quiet'}` }, number === undefined ? '–' : String(number));
  return card(h('table', {},
    h('thead', {}, h('tr', {}, h('th', {}, 'Service'), h('th', { class: 'number', title: 'Events listed below in which its step failed' }, 'Failed below'),
      h('th', { class: 'number' }, 'In flight'), h('th', { class: 'number', title: 'Outbound requests that matched no open event: broken propagation' }, 'Possible splits'),
      h('th', { class: 'number', title: 'Reports that its proxies dropped, or that never came' }, 'Lost reports'), h('th', { class: 'number' }, 'Proxies'), h('th', {}, 'Last heard'))),
    h('tbody', {}, rows.map((row) => h('tr', {},
      h('td', {}, h('span', { class: 'name' }, row.service), row.outside ? [' ', mark('outside the mesh', 'quiet')] : null),
      cell(row.failed, 'bad'), cell(row.in_flight, 'busy'), cell(row.possible_splits, 'warn'), cell(row.lost, 'warn'), cell(row.proxies, ''),
      h('td', { class: 'nowrap' }, row.outside ? '–' : [row.silent ? [mark('silent', 'warn'), ' since '] : null, clock(row.last_heard)]))))));
}

function eventsTable({ events, more }) {
  if (!events.length) {
    return says(choice === 'failed' ? 'No event has failed. That is all there is to say.' : `There are no events ${CHOICES[choice][0]}.`);
  }
  return card(h('table', {},
    h('thead', {}, h('tr', {}, h('th', {}, 'Event'), h('th', {}, 'Type'), h('th', {}, 'State'), h('th', {}, 'Failed step'), h('th', {}, 'Began'))),
    h('tbody', {}, events.map((event) => h('tr', {},
      h('td', {}, eventLink(event.event)), h('td', {}, event.type || h('span', { class: 'quiet' }, 'none')),
      h('td', {}, mark(event.state), event.shared ? mark('shared id', 'quiet') : null),
      h('td', {}, event.failed || h('span', { class: 'quiet' }, '–')), h('td', { class: 'nowrap' }, moment(event.first_at)))))),
    more ? h('p', { class: 'quiet' }, `The newest ${events.length} are shown; /v1/events has them all.`) : null);
}

// A breaker with the way to close it: a name and a reason, as for everything that an operator does.
function breakerCard(breaker, open) {
  const name = h('input', { name: 'by', maxlength: '128', required: '', autocomplete: 'username', 'aria-label': 'Your name', placeholder: 'Your name' });
  const reason = h('input', { name: 'reason', maxlength: '2048', required: '', class: 'wide', 'aria-label': 'Reason', placeholder: 'Reason, for the record' });
  const problem = h('p', { class: 'bad', role: 'alert' });
  const form = h('form', { class: 'order' }, name, reason, h('button', {}, 'Close the breaker'));
  form.addEventListener('submit', async (submit) => {
    submit.preventDefault();
    const type = breaker.type === null ? '""' : breaker.type; // no type has quotes
    try {
      await ask(`/v1/breakers/${encodeURIComponent(type)}/close`, { by: name.value, reason: reason.value });
      form.reset();
      document.activeElement.blur();
      draw();
    } catch (error) {
      problem.replaceChildren(error.message);
    }
  });
  return h('div', { class: 'card problem' },
    h('p', {}, mark('breaker open', 'bad'), ' ', h('span', { class: 'name' }, breaker.type || 'events of no type'), ' since ', moment(breaker.tripped_at),
      h('br', {}), `${breaker.text}.`),
    open ? null : form, open ? null : problem);
}

function breakersSection(breakers) {
  return breakers.length ? section(count(breakers.length, 'open breaker'), ...breakers.map((breaker) => breakerCard(breaker))) : [];
}

// Who makes names up: a proxy, a path, an event type for each request.
const EXCESSES = {
  proxies: 'batches of new proxies refused', reporters: 'batches of new reporters refused',
  calls: 'calls without a path and type of their own', types: 'event types not learned',
};
function excessesSection(excesses) {
  if (!excesses.length) return [];
  const rows = excesses.slice(0, 20).map((excess) => h('li', {}, h('span', { class: 'name' }, excess.who), ' ', mark('used up its share', 'warn'),
    ` ${excess.count} ${EXCESSES[excess.what] || excess.what}`, excess.proxy ? [', the last from ', id(excess.proxy)] : null, ', last at ', moment(excess.last_at)));
  return section('Too many names', card(h('ul', { class: 'plain' }, rows), excesses.length > 20 ? h('p', { class: 'quiet' }, '/v1/limits has the others.') : null));
}

async function overview() {
  const [{ services }, events, { breakers }, { excesses }] = await Promise.all([ask('/v1/services'), readEvents(), ask('/v1/breakers'), ask('/v1/limits')]);
  const select = h('select', { 'aria-label': 'Which events' },
    Object.entries(CHOICES).map(([value, [text]]) => h('option', value === choice ? { value, selected: '' } : { value }, text)));
  select.addEventListener('change', () => { choice = select.value; draw(); });
  return [
    ...breakersSection(breakers),
    ...excessesSection(excesses),
    ...section('Services, worst first', servicesTable(services, events.events, Date.now())),
    h('h2', {}, 'Events', select), eventsTable(events),
  ];
}

function lead(story) {
  const began = story.entry ? ` began at ${story.entry}` : ' was reported';
  return [story.type ? `This ${story.type} event` : 'This event', `${began} at `, clock(story.first_at), '. ', prose(story.summary)];
}

const answered = (attempt) => attempt.open ? `open for ${attempt.duration_ms} ms`
  : `${attempt.grpc !== null ? `gRPC ${attempt.grpc}` : attempt.status === null ? 'no answer' : attempt.status} in ${attempt.duration_ms} ms`;

function stepItem(step) {
  const role = step.entry ? 'entry' : step.external ? 'outside the mesh' : step.gateway ? 'gateway' : null;
  const calls = step.calls.map((call) => h('li', {}, `${call.from || 'a client'} called `, h('code', {}, `${call.method} ${call.path}`), ': ',
    call.attempts.map(answered).join(', then '), call.attempts.some((a) => a.seen_by === 'caller') ? ' (as its caller saw it)' : ''));
  return h('li', { class: COLOURS[step.outcome] || '' },
    h('span', { class: 'name' }, step.service), ' ', mark(step.outcome), step.effect === 'no' ? null : mark(`effect ${step.effect}`, 'warn'), role ? mark(role, 'quiet') : null,
    step.word ? ` It says “${step.word}”.` : '', step.progress === null ? '' : ` ${Math.round(step.progress * 100)} % done.`,
    h('ul', { class: 'calls' }, calls));
}

function planList(plan) {
  const entries = plan.entries.map((entry) => h('li', {}, h('span', { class: 'name' }, entry.service), ' ',
    entry.effect === 'no' ? mark('cleared', 'good') : mark(`effect ${entry.effect}`, 'warn'),
    entry.after.length ? ` after ${entry.after.join(', ')}` : ' first', entry.together.length ? `, together with ${entry.together.join(', ')}` : '',
    entry.by_hand ? ', by hand' : ''));
  return card(h('ul', { class: 'plain' }, entries), plan.complete ? null
    : h('p', { class: 'warn' }, `Not all could be heard: ${plan.missing.join(', ')} may have something to undo that nobody reported.`));
}

function refusalItem(seen) {
  const who = seen.side === 'inbound' ? `${seen.service}${seen.from ? `, called by ${seen.from},` : ''}` : `${seen.service}, calling ${seen.to || 'on'},`;
  return h('li', {}, clock(seen.at), ` the proxy of ${who} ${seen.enforced ? 'refused' : 'would have refused'} `, h('code', {}, `${seen.method} ${seen.path}`));
}

const policyItem = (line) => h('li', {}, h('code', {}, line.text || `${line.key}: ${line.says}`), ' ',
  h('span', { class: 'quiet' }, line.version === null ? 'by default' : `policy version ${line.version}, ${line.line === null ? 'no longer readable' : `line ${line.line}`}, ${line.scope}`));

function evidenceItem(evidence) {
  const who = evidence.proxy ? `${evidence.proxy} beside ${evidence.service}, ` : '';
  return h('li', {}, evidence.at ? [clock(evidence.at), ' '] : null, prose(evidence.text), ' ', h('span', { class: 'quiet' }, `${who}report ${evidence.reporter}/${evidence.seq}`));
}

const revisionItem = (revision) => h('li', {}, clock(revision.at), ' ', mark(`revision ${revision.revision}`, 'quiet'), ` ${revision.text}`);

function consideredItem(rule) {
  return h('li', {}, mark(rule.rule, rule.fired ? 'bad' : 'quiet'), ' ', prose(rule.why), rule.asked_again ? ['; asked again at ', clock(rule.asked_again)] : null,
    rule.policy.length ? h('ul', { class: 'calls' }, rule.policy.map(policyItem)) : null);
}

async function storyOf(event) {
  const story = await ask(`/v1/events/${encodeURIComponent(event)}`);
  const list = (items) => card(h('ul', { class: 'plain' }, items));
  const decision = story.decision;
  const parts = [
    h('p', {}, h('a', { href: '#/' }, '← All events')), h('h1', { class: 'id' }, story.event),
    h('p', {}, mark(story.state), decision ? mark(`decision ${decision.state}`, COLOURS[decision.state]) : null, story.shared ? mark('shared id', 'quiet') : null, story.borrowed ? mark('borrowed id', 'quiet') : null),
    h('p', { class: 'lead' }, lead(story)),
  ];
  const considered = story.considered.length ? section('What was considered', list(story.considered.map(consideredItem))) : [];
  if (story.breaker) parts.push(breakerCard(story.breaker, true));
  if (decision) {
    parts.push(...section('Why, and what became of it', card(h('p', {}, prose(decision.explanation)))));
    parts.push(...section(`The way back (revision ${decision.revision})`, planList(decision.plan)));
    parts.push(...section('What it rests on', list([...decision.evidence.map(evidenceItem), ...decision.policy.map(policyItem)])));
    if (decision.revisions.length > 1) parts.push(...section('Revisions', list(decision.revisions.map(revisionItem))));
  } else {
    parts.push(...considered);
  }
  if (story.refusals.length) parts.push(...section(count(story.refusals.length, 'refusal'), list(story.refusals.map(refusalItem))));
  parts.push(...section('Steps', story.steps.length ? card(h('ol', { class: 'story' }, story.steps.map(stepItem)))
    : says('Its reports are no longer kept; what is above is all that is left.')));
  if (story.cleanups.length) {
    parts.push(...section('Clean-up by the application', list(story.cleanups.map((seen) => h('li', {}, clock(seen.at), ` ${seen.service} `, h('code', {}, `${seen.method} ${seen.path}`))))));
  }
  if (story.undos.length) {
    parts.push(...section('Undo calls', list(story.undos.map((seen) => h('li', {}, clock(seen.at), ` ${seen.service} `, h('code', {}, `${seen.method} ${seen.path}`), `: ${seen.status === null ? 'no answer' : seen.status}`)))));
  }
  if (decision && decision.state === 'withdrawn') parts.push(...considered);
  return parts;
}

async function draw() {
  const turn = ++drawn;
  const hash = location.hash;
  const event = hash.startsWith('#/events/') ? decodeURIComponent(hash.slice('#/events/'.length)) : null;
  document.title = event ? `${event} · Kaeru` : 'Kaeru';
  try {
    const parts = await (event ? storyOf(event) : overview());
    if (turn !== drawn) return;
    // What somebody is choosing or writing in stays as it is.
    const at = document.activeElement;
    const busy = (at && ['SELECT', 'INPUT'].includes(at.tagName) && main.contains(at)) || [...main.querySelectorAll('input')].some((input) => input.value);
    if (busy && main.dataset.view === hash && main.dataset.choice === choice) return;
    main.replaceChildren(...parts);
    main.dataset.view = hash;
    main.dataset.choice = choice;
    freshness.textContent = `As of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    if (turn !== drawn) return;
    const view = main.dataset.view === hash && main.dataset.failed !== 'yes';
    freshness.textContent = view ? `Not up to date: ${error.message}` : '';
    if (view) return;
    main.replaceChildren(h('div', { class: 'card problem', role: 'alert' }, h('p', {}, error.message)), h('p', {}, h('a', { href: '#/' }, '← All events')));
  }
}

document.getElementById('find').addEventListener('submit', (submit) => {
  submit.preventDefault();
  const wanted = document.getElementById('find-id').value.trim();
  if (wanted) location.hash = `#/events/${encodeURIComponent(wanted)}`;
});
window.addEventListener('hashchange', () => {
  main.replaceChildren(h('p', { class: 'quiet' }, 'Loading…'));
  delete main.dataset.view;
  draw();
});
setInterval(() => { if (!document.hidden) draw(); }, REFRESH_MS);
draw();
