-- As pg_dump --schema-only writes it.
SET statement_timeout = 0;

CREATE FUNCTION public.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now(); -- nothing to do with CREATE TRIGGER x AFTER INSERT ON y
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION "public"."notify_booking"() RETURNS "trigger"
    LANGUAGE "plpgsql" SECURITY DEFINER
    AS $_$
begin
  perform net.http_post(
    url := 'https://bookings.acme.test/functions/v1/notify',
    body := jsonb_build_object('id', new.id)
  );
  return new;
end;
$_$;

CREATE OR REPLACE TRIGGER "order-hook" AFTER INSERT OR DELETE OR UPDATE ON "public"."orders" FOR EACH ROW EXECUTE FUNCTION "supabase_functions"."http_request"('https://hooks.acme.test/orders', 'POST', '{"Content-type":"application/json","Authorization":"Bearer it''s-secret"}', '{}', '5000');

CREATE TRIGGER status_hook AFTER UPDATE OF status ON public.orders FOR EACH ROW WHEN ((old.status IS DISTINCT FROM new.status)) EXECUTE PROCEDURE supabase_functions.http_request('https://hooks.acme.test/status', 'GET', '{}', '{"a":"b"}', '1000');

CREATE TRIGGER booking AFTER INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION notify_booking();

CREATE TRIGGER touch BEFORE UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
