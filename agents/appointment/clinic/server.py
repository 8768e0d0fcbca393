#!/usr/bin/env python3
"""The back end of a small clinic: services, hours, free times, appointments. Python's own library only.

    server.py [--port 0] [--state FILE] [--today YYYY-MM-DD]

prints `listening on http://127.0.0.1:PORT`. clinic.openapi.yaml describes what it answers. Appointments
are kept in memory and, with --state, in a JSON file that is replaced whole after every change, so that a
crash leaves the old one or the new one. `Idempotency-Key` on a POST: a repetition gets the first answer
and changes nothing. GET /stats counts requests, changes and repetitions, for tests.
"""
import argparse
import datetime
import hashlib
import http.server
import json
import os
import re
import secrets
import signal
import threading
import urllib.parse

SERVICES = [
    {"id": "general", "en": "General consultation", "es": "Consulta general", "price": 50, "minutes": 30},
    {"id": "dental", "en": "Dental cleaning", "es": "Limpieza dental", "price": 60, "minutes": 45},
    {"id": "physio", "en": "Physiotherapy", "es": "Fisioterapia", "price": 45, "minutes": 60},
    {"id": "pediatrics", "en": "Pediatrics", "es": "Pediatría", "price": 55, "minutes": 30},
    {"id": "eyes", "en": "Eye examination", "es": "Examen de la vista", "price": 40, "minutes": 30},
]
WEEKDAYS = {"en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
            "es": ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"]}
TIMES = {True: ["09:00", "10:00", "11:00", "12:00", "15:00", "16:00", "17:00"],  # a weekday
         False: ["09:00", "10:00", "11:00", "12:00"]}                           # Saturday
HOURS = {"en": "Monday to Friday 9:00-18:00, Saturday 9:00-13:00, closed on Sunday",
         "es": "lunes a viernes de 9:00 a 18:00, sábado de 9:00 a 13:00, domingo cerrado"}
BODY_BYTES_MAX = 64 << 10
REMEMBERED_KEYS_MAX = 10_000


class Refused(Exception):
    """An answer that is an error, in both languages."""

    def __init__(self, status, code, english, spanish, field=None):
        super().__init__(english)
        self.status = status
        self.body = {"error": {"code": code, "message": english, "message_es": spanish}}
        if field:
            self.body["error"]["field"] = field


def invalid(field, english, spanish):
    return Refused(422, "invalid", f"{field}: {english}", f"{field}: {spanish}", field)


class Clinic:
    """All state; one lock around every operation."""

    def __init__(self, path, today):
        self.path = path
        self.fixed_today = today
        self.lock = threading.Lock()
        self.appointments = {}
        self.answers = {}  # Idempotency-Key -> {request, status, body}
        self.counts = {"requests": 0, "changes": 0, "repeated": 0}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                stored = json.load(file)
            self.appointments, self.answers = stored["appointments"], stored["answers"]

    def save(self):
        if not self.path:
            return
        temporary = f"{self.path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"appointments": self.appointments, "answers": self.answers}, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)

    def today(self):
        return self.fixed_today or datetime.date.today()

    # --- what can be asked --------------------------------------------------------------------
    def list_services(self, query):
        language = language_of(query)
        services = [{"id": service["id"], "name": service[language], "price_usd": service["price"],
                     "minutes": service["minutes"]} for service in SERVICES]
        lines = [f"{service['name']}: {service['price_usd']} USD" for service in services]
        return {"services": services, "summary": "; ".join(lines)}

    def get_hours(self, query):
        return {"hours": HOURS[language_of(query)],
                "opens": {day: ("09:00-18:00" if number < 5 else "09:00-13:00" if number == 5 else "closed")
                          for number, day in enumerate(WEEKDAYS[language_of(query)])}}

    def list_free_slots(self, query):
        language = language_of(query)
        today = self.today()
        monday = today + datetime.timedelta(days=7 - today.weekday())
        if "week_of" in query:
            day = read_date("week_of", query["week_of"])
            monday = day - datetime.timedelta(days=day.weekday())
        slots = [{"date": day.isoformat(), "time": time, "weekday": WEEKDAYS[language][day.weekday()]}
                 for day in (monday + datetime.timedelta(days=n) for n in range(6))
                 for time in self.free_times(day)]
        shown = slots[:12]
        lines = [f"{slot['weekday']} {slot['date']} {slot['time']}" for slot in shown]
        return {"slots": shown, "total": len(slots), "summary": "; ".join(lines)}

    def free_times(self, day):
        """Deterministic: about a third of the times are taken by patients who called."""
        if day < self.today() or day.weekday() == 6:
            return []
        booked = {(a["date"], a["time"]) for a in self.appointments.values() if a["status"] == "booked"}
        return [time for time in TIMES[day.weekday() < 5]
                if hashlib.sha256(f"{day} {time}".encode()).digest()[0] % 3
                and (day.isoformat(), time) not in booked]

    def take_slot(self, body):
        day = read_date("date", body.get("date"))
        time = body.get("time")
        if not isinstance(time, str) or not re.fullmatch(r"[0-2]\d:[0-5]\d", time):
            raise invalid("time", "expected HH:MM", "se esperaba HH:MM")
        if time not in self.free_times(day):
            raise Refused(409, "slot_taken", f"{day} {time} is not free", f"{day} {time} no está libre")
        return {"date": day.isoformat(), "time": time}

    def book_appointment(self, body):
        service = next((s for s in SERVICES if s["id"] == body.get("service")), None)
        if service is None:
            known = ", ".join(s["id"] for s in SERVICES)
            raise invalid("service", f"expected one of {known}", f"se esperaba uno de {known}")
        name = body.get("patient_name")
        if not isinstance(name, str) or not 1 <= len(name.strip()) <= 100:
            raise invalid("patient_name", "expected 1 to 100 characters",
                          "se esperaban de 1 a 100 caracteres")
        phone = body.get("phone", "")
        if not isinstance(phone, str) or len(phone) > 40:
            raise invalid("phone", "expected at most 40 characters", "se esperaban 40 caracteres como máximo")
        slot = self.take_slot(body)
        # A digit among the letters tells a number from a word, for people and for programs.
        number = "C" + secrets.choice("23456789") + "".join(
            secrets.choice("23456789ABCDEFGHJKMNPQRSTUVWXYZ") for _ in range(6))
        self.appointments[number] = {
            "confirmation_number": number, "service": service["id"], "service_name": service["en"],
            "service_name_es": service["es"], "price_usd": service["price"], **slot,
            "patient_name": name.strip(), "phone": phone, "status": "booked"}
        return 201, self.appointments[number]

    def appointment(self, number):
        found = self.appointments.get(number.strip().upper())
        if found is None:
            raise Refused(404, "not_found", "there is no appointment with this confirmation number",
                          "no hay ninguna cita con este número de confirmación")
        return found

    def cancel_appointment(self, number):
        self.appointment(number)["status"] = "cancelled"
        return 200, self.appointment(number)

    def reschedule_appointment(self, number, body):
        found = self.appointment(number)
        if found["status"] != "booked":
            raise Refused(409, "cancelled", "this appointment was cancelled", "esta cita fue cancelada")
        found.update(self.take_slot(body))
        return 200, found

    # --- changes: once each -------------------------------------------------------------------
    def change(self, key, request, operation):
        """Runs `operation` under the lock, stores what it changed, remembers the answer under `key`."""
        fingerprint = hashlib.sha256(request).hexdigest()
        with self.lock:
            known = self.answers.get(key) if key else None
            if known:
                if known["request"] != fingerprint:
                    raise Refused(422, "idempotency_mismatch",
                                  "this Idempotency-Key was used for another request",
                                  "esta Idempotency-Key se usó para otra solicitud")
                self.counts["repeated"] += 1
                return known["status"], known["body"]
            status, body = operation()
            body = dict(body)
            if key:
                while len(self.answers) >= REMEMBERED_KEYS_MAX:
                    del self.answers[next(iter(self.answers))]
                self.answers[key] = {"request": fingerprint, "status": status, "body": body}
            self.counts["changes"] += 1
            self.save()
            return status, body


def language_of(query):
    language = query.get("language", "en")
    if language not in ("en", "es"):
        raise invalid("language", "expected en or es", "se esperaba en o es")
    return language


def read_date(field, text):
    try:
        return datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        raise invalid(field, "expected YYYY-MM-DD", "se esperaba AAAA-MM-DD") from None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "clinic"
    timeout = 120
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(self.get)

    def do_POST(self):
        self.answer(self.post)

    def answer(self, method):
        clinic = self.server.clinic
        with clinic.lock:
            clinic.counts["requests"] += 1
        try:
            status, body = method(clinic, urllib.parse.urlsplit(self.path))
        except Refused as refused:
            status, body = refused.status, refused.body
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def get(self, clinic, url):
        query = dict(urllib.parse.parse_qsl(url.query))
        lists = {"/services": clinic.list_services, "/hours": clinic.get_hours,
                 "/slots": clinic.list_free_slots}
        with clinic.lock:
            if url.path in lists:
                return 200, lists[url.path](query)
            if url.path == "/stats":
                return 200, dict(clinic.counts)
            found = re.fullmatch(r"/appointments/([^/]+)", url.path)
            if found:
                return 200, dict(clinic.appointment(urllib.parse.unquote(found[1])))
        raise Refused(404, "no_such_path", "no such path", "no existe esa ruta")

    def post(self, clinic, url):
        raw = self.read_body()
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            raise Refused(400, "bad_json", "the body is not JSON", "el cuerpo no es JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "bad_json", "the body is not an object", "el cuerpo no es un objeto")
        key = self.headers.get("Idempotency-Key")
        found = re.fullmatch(r"/appointments(?:/([^/]+)/(cancel|reschedule))?", url.path)
        if not found:
            raise Refused(404, "no_such_path", "no such path", "no existe esa ruta")
        number = urllib.parse.unquote(found[1] or "")
        operation = {
            None: lambda: clinic.book_appointment(body),
            "cancel": lambda: clinic.cancel_appointment(number),
            "reschedule": lambda: clinic.reschedule_appointment(number, body),
        }[found[2]]
        return clinic.change(key, url.path.encode() + b"\n" + raw, operation)

    def read_body(self):
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(413, "too_large", "at most 64 KB", "64 KB como máximo")
        return self.rfile.read(int(length))

    def log_message(self, *_):
        pass  # names and phones do not belong into a log


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", help="JSON file that keeps the appointments")
    parser.add_argument("--today", type=datetime.date.fromisoformat, help="the date to take for today")
    options = parser.parse_args()
    server = Server((options.host, options.port), Handler)
    server.clinic = Clinic(options.state, options.today)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://{options.host}:{server.server_address[1]}", flush=True)
    server.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
